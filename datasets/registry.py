"""What can be fetched: where each file is published, its checksum, and under which licence.

A file has one relative path, in the cache as in any folder that takes its place. The checksum
decides what a file is; the address is only where to look for it. Addresses are pinned to a commit
where that commit is known to hold these bytes, else they follow the default branch.
"""

from collections.abc import Mapping
from types import MappingProxyType

from xlstm_ts.datasets.published import Dataset, PublishedFile
from xlstm_ts.datasets.recordings import ASD_SERVERS, NAB_SERIES, SKAB_RUNS

_ETT = (
    "https://raw.githubusercontent.com/zhouhaoyi/ETDataset/1d16c8f4f943005d613b5bc962e9eeb06058cf07"
)
_M4 = "https://raw.githubusercontent.com/Mcompetitions/M4-methods/master"
_TSLIB = "https://huggingface.co/datasets/thuml/Time-Series-Library/resolve/main"

_ETTH1 = Dataset(
    files=(
        PublishedFile(
            path="ett/ETTh1.csv",
            url=f"{_ETT}/ETT-small/ETTh1.csv",
            sha256="f18de3ad269cef59bb07b5438d79bb3042d3be49bdeecf01c1cd6d29695ee066",
        ),
    ),
    homepage="https://github.com/zhouhaoyi/ETDataset",
    licence="CC BY-ND 4.0",
    citation=(
        "H. Zhou et al.: Informer: Beyond Efficient Transformer for Long Sequence Time-Series "
        "Forecasting. AAAI 2021."
    ),
    freq="h",
)

# The station publishes other cuts of its record; these bytes exist only with the benchmarks.
_WEATHER = Dataset(
    files=(
        PublishedFile(
            path="weather/weather.csv",
            url=f"{_TSLIB}/weather/weather.csv",
            sha256="34ee981d07313e51da2a50bb600072c8ae4a69cb4b0651f4cb93a069d7a2ba63",
        ),
    ),
    homepage="https://www.bgc-jena.mpg.de/wetter/",
    licence="see the publisher, the Max Planck Institute for Biogeochemistry, Jena",
    citation=(
        "H. Wu et al.: Autoformer: Decomposition Transformers with Auto-Correlation for Long-Term "
        "Series Forecasting. NeurIPS 2021."
    ),
)

_M4_HOURLY = Dataset(
    files=(
        PublishedFile(
            path="m4/Hourly-train.csv",
            url=f"{_M4}/Dataset/Train/Hourly-train.csv",
            sha256="ea59b7783573c49077a835ab6465c7d66f1474783360f310988a9a737fbca62f",
        ),
        PublishedFile(
            path="m4/Hourly-test.csv",
            url=f"{_M4}/Dataset/Test/Hourly-test.csv",
            sha256="71a57fccb15e534d973626ada4fb87febf789e9317715b7cc6dd3b5f90db6f42",
        ),
    ),
    homepage="https://github.com/Mcompetitions/M4-methods",
    licence="see the publisher, the M4 competition",
    citation=(
        "S. Makridakis, E. Spiliotis, V. Assimakopoulos: The M4 Competition: 100,000 time series "
        "and 61 forecasting methods. International Journal of Forecasting 36(1), 2020."
    ),
)

DATASETS: Mapping[str, Mapping[str, Dataset]] = MappingProxyType(
    {
        "ett": MappingProxyType({"ETTh1": _ETTH1}),
        "weather": MappingProxyType({"weather": _WEATHER}),
        "nab": MappingProxyType(NAB_SERIES),
        "m4": MappingProxyType({"Hourly": _M4_HOURLY}),
        "asd": MappingProxyType(ASD_SERVERS),
        "skab": MappingProxyType(SKAB_RUNS),
    }
)
"""Every data set that can be fetched: family -> name -> `Dataset`."""


def find_dataset(family: str, *, name: str) -> Dataset:
    """Return a data set of a family by its name.

    Parameters
    ----------
    family : str
        A key of `DATASETS`.
    name : str
        Name within the family, case-sensitive.

    Returns
    -------
    Dataset
        The entry.

    Raises
    ------
    ValueError
        If the family has no data set of this name; the message lists those it has.
    """
    known = DATASETS[family]
    if name not in known:
        names = ", ".join(repr(each) for each in known)
        raise ValueError(f"`name` must be one of {names}, got {name!r}.")
    return known[name]
