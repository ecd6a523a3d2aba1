"""What can be fetched: where each file is published, its checksum, and under which licence.

A file has one relative path, in the cache as in any folder that takes its place. The checksum
decides what a file is; the address is only where to look for it. Addresses are pinned to a commit
where that commit is known to hold these bytes, else they follow the default branch.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

_ETT = (
    "https://raw.githubusercontent.com/zhouhaoyi/ETDataset/1d16c8f4f943005d613b5bc962e9eeb06058cf07"
)
_NAB = "https://raw.githubusercontent.com/numenta/NAB/ea702d75cc2258d9d7dd35ca8e5e2539d71f3140"
_M4 = "https://raw.githubusercontent.com/Mcompetitions/M4-methods/master"
_TSLIB = "https://huggingface.co/datasets/thuml/Time-Series-Library/resolve/main"


@dataclass(frozen=True, kw_only=True)
class PublishedFile:
    """One file of a data set.

    Attributes
    ----------
    path : str
        Where the file lies, relative to the data folder, with forward slashes.
    url : str
        Where it is published.
    sha256 : str
        Checksum of the published bytes, 64 hexadecimal digits.
    """

    path: str
    url: str
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A published data set.

    Attributes
    ----------
    files : tuple of PublishedFile
        Its files, in the order in which the loader reads them.
    homepage : str
        Page of the publisher.
    licence : str
        Licence of the data, as stated by the publisher.
    citation : str
        What to cite.
    freq : str or None
        Step of the time index as a pandas offset; None where the stamps are not regular.
    """

    files: tuple[PublishedFile, ...]
    homepage: str
    licence: str
    citation: str
    freq: str | None = None


def _nab(name: str, *, sha256: str, freq: str | None = None) -> Dataset:
    series = f"data/realKnownCause/{name}.csv"
    windows = "labels/combined_windows.json"
    return Dataset(
        files=(
            PublishedFile(path=f"nab/{series}", url=f"{_NAB}/{series}", sha256=sha256),
            PublishedFile(
                path=f"nab/{windows}",
                url=f"{_NAB}/{windows}",
                sha256="1e1fbc4601321aad8d0f8b3784c8134299379f68f6c1f7777565f8ffd57ab6b1",
            ),
        ),
        homepage="https://github.com/numenta/NAB",
        licence="MIT",
        citation=(
            "S. Ahmad, A. Lavin, S. Purdy, Z. Agha: Unsupervised real-time anomaly detection for "
            "streaming data. Neurocomputing 262, 2017."
        ),
        freq=freq,
    )


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

_NAB_SERIES = {
    "ambient_temperature_system_failure": _nab(
        "ambient_temperature_system_failure",
        sha256="230b68ccca20f59d562afd5d24ad52939c9b784386bed0054018358bf9120581",
    ),
    "cpu_utilization_asg_misconfiguration": _nab(
        "cpu_utilization_asg_misconfiguration",
        sha256="58ba65dc0737cfbac11b51514476d50c438d44011232144bb8d93f392df58f9f",
        freq="5min",
    ),
    "ec2_request_latency_system_failure": _nab(
        "ec2_request_latency_system_failure",
        sha256="98378580aa80157e057c61d59d81daddccc6c65a2c0c800e3f01f603b8215c3f",
    ),
    "machine_temperature_system_failure": _nab(
        "machine_temperature_system_failure",
        sha256="92bf5b87fc7f9bba8ca0b7ec63ccaac8cb4a1371a258e8c29a10ae9c018d82a4",
    ),
    "nyc_taxi": _nab(
        "nyc_taxi",
        sha256="d8fa6f7f0734bf5c8be12c52a94e20a82664c397d9dec4449156bd453d32856d",
        freq="30min",
    ),
    "rogue_agent_key_hold": _nab(
        "rogue_agent_key_hold",
        sha256="47b110baa8e3636574c1033dda1cce780873647fab58223d159d4fee6f180e86",
    ),
    "rogue_agent_key_updown": _nab(
        "rogue_agent_key_updown",
        sha256="9797cfef477c13306f7a33874ab4d6cf700f8f2c7e5825a2a5bc02004370909a",
    ),
}

DATASETS: Mapping[str, Mapping[str, Dataset]] = MappingProxyType(
    {
        "ett": MappingProxyType({"ETTh1": _ETTH1}),
        "weather": MappingProxyType({"weather": _WEATHER}),
        "nab": MappingProxyType(_NAB_SERIES),
        "m4": MappingProxyType({"Hourly": _M4_HOURLY}),
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
