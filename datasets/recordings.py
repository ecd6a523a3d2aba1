"""Recordings with labelled anomalies: where they are published, and their checksums."""

from xlstm_ts.datasets.published import Dataset, PublishedFile

_NAB = "https://raw.githubusercontent.com/numenta/NAB/ea702d75cc2258d9d7dd35ca8e5e2539d71f3140"
_ASD = (
    "https://raw.githubusercontent.com/zhhlee/InterFusion/4d6e3fc6d6354a0e9a2d7e8f6e1ffd0812424352"
)
_SKAB = "https://raw.githubusercontent.com/waico/SKAB/master/data"


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


def _asd(name: str, *, readings: str, events: str) -> Dataset:
    return Dataset(
        files=(
            # Published are pickles, which may run code when they are read: `fetch_asd` says how to
            # make this file of them.
            PublishedFile(path=f"asd/{name}.npz", url=None, sha256=readings),
            PublishedFile(
                path=f"asd/{name}_interpretation.txt",
                url=f"{_ASD}/data/interpretation_label/{name}.txt",
                sha256=events,
            ),
        ),
        homepage="https://github.com/zhhlee/InterFusion",
        licence="MIT",
        citation=(
            "Z. Li et al.: Multivariate Time Series Anomaly Detection and Interpretation using "
            "Hierarchical Inter-Metric and Temporal Embedding. KDD 2021."
        ),
        freq="5min",
    )


def _skab(path: str, *, sha256: str) -> Dataset:
    return Dataset(
        files=(PublishedFile(path=f"skab/{path}.csv", url=f"{_SKAB}/{path}.csv", sha256=sha256),),
        homepage="https://github.com/waico/SKAB",
        licence="GPL-3.0",
        citation="I. D. Katser, V. O. Kozitsin: Skoltech Anomaly Benchmark (SKAB). Kaggle, 2020.",
    )


NAB_SERIES = {
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
"""The seven files of `realKnownCause`."""

ASD_SERVERS = {
    "omi-1": _asd(
        "omi-1",
        readings="22f193ab6898828eaa53d2919331d749f9ee14cab53c641c57db36fabe99b49c",
        events="d03906c87f70d10d8d0de424086c9f837897a606fe54562d3b76666b99fd17e8",
    ),
    "omi-2": _asd(
        "omi-2",
        readings="55f7510001c1fc35574b74b225200c1aeaa4a5b4e45729bfb7011665afcfb162",
        events="afd9d90f6723992c274012f4b304629a3b915cb2ae106f23934aa7c5b671276c",
    ),
    "omi-3": _asd(
        "omi-3",
        readings="6af05bc69438d3046c4593e14f4fd91fdab0ab809acd70453bc5e57d40fc3744",
        events="81ccfb817099e2845d6e9f845e551b7648c7d183ac476aa85bae02756fbe3912",
    ),
    "omi-4": _asd(
        "omi-4",
        readings="f940fbe4dc061b31e38a3fdcb3d33687cd03a7e40bf1b3c9ca883d056a385a57",
        events="30ec1acb59583bc87afac82873c2c0fb06a8a0c50719543088c15f8bef76203b",
    ),
    "omi-5": _asd(
        "omi-5",
        readings="e274319e3896af86211c396cbaee362470f92abfde3dee593649344b774a8ecb",
        events="c8eb89b8297f618a9dadfdbcab1ffc9e1b10478d1ae12d4aff3498878aa9b945",
    ),
    "omi-6": _asd(
        "omi-6",
        readings="8a40a1db197b77b503d3166672313e98e8b63f71eed2d8574f59f7e0c01b7602",
        events="609db4327c09e37ead6a9dc6123704d59106e4e4f82043fa7bbcb8e14c2ab4e3",
    ),
}
"""Six of the twelve servers of the Application Server Dataset."""

SKAB_RUNS = {
    "anomaly-free": _skab(
        "anomaly-free/anomaly-free",
        sha256="7641a8742957100ef424dd97adfb3eeab27d4d180645fe2b3c49b7f7146ae9a6",
    ),
    "valve1/0": _skab(
        "valve1/0",
        sha256="16af3f71313a23dd33d9b7b8065d836d05c3f9257588881cc7fbe07c076d9dc8",
    ),
    "valve1/1": _skab(
        "valve1/1",
        sha256="fe4493bf805baef4e6dfb864094275d8cc2ea80a16b3735e2752b18b6aefd812",
    ),
    "valve1/2": _skab(
        "valve1/2",
        sha256="90492413469261886c8896c327241448df5da73fd7739cabfec8dd82de3c0ce4",
    ),
    "valve1/3": _skab(
        "valve1/3",
        sha256="cb6afea108eddfd8447307e405f86bbb764b8d8e9130d7849a46e1303e19b8b2",
    ),
    "valve1/4": _skab(
        "valve1/4",
        sha256="983aed9dc09991a57911091373c580e1b86d06aa983cd51678f108fd8d709654",
    ),
    "valve1/5": _skab(
        "valve1/5",
        sha256="78974991ec87b7f9b9b6b2944f4b525468a9beb36c59b06cd7650d9a15eca14a",
    ),
    "valve1/6": _skab(
        "valve1/6",
        sha256="97469c0e0c9c0e0ee5d30794f1f36c6785df5816a112a8b16c59637e8c894685",
    ),
    "valve1/7": _skab(
        "valve1/7",
        sha256="ca2c9c6d6fa302c642acec6fbedac495bd12fececeee0a755d45a54e340e0f30",
    ),
    "valve1/8": _skab(
        "valve1/8",
        sha256="0c4afb92248b5b35b4c9d734a91ed8318346901f04579074903730569e60416c",
    ),
    "valve1/9": _skab(
        "valve1/9",
        sha256="2aa1ae1b2ff505caecda24802b877dc686924bbbeeb7e7db4faa261efb5ed5bd",
    ),
    "valve1/10": _skab(
        "valve1/10",
        sha256="ee16be8e4b870c779491e3d1dc9e0ecbfaf29eb013e032abff7a33f2cbbfe2ad",
    ),
    "valve1/11": _skab(
        "valve1/11",
        sha256="89660fae4ed5c918db014409bbbc29f498fd99c7e956fab2620d18dea700a973",
    ),
    "valve1/12": _skab(
        "valve1/12",
        sha256="90adfa9bc86d4556e6a4ce734436fd5685af79c189cd9828f8df75a7f468ce07",
    ),
    "valve1/13": _skab(
        "valve1/13",
        sha256="d6cb6a97437215d3066a87e1fcc5fa4e68017629c043c5315920e3cf1060841c",
    ),
    "valve1/14": _skab(
        "valve1/14",
        sha256="5f0bb9bc33c5e6c259263e32e25915c4d24c82b0a94554d48808626da05c1d71",
    ),
    "valve1/15": _skab(
        "valve1/15",
        sha256="75cc86ab25d7091eee024739fa06d048753480d5d7d1507077231cab4f1b7a7e",
    ),
}
"""The runs in which a valve is closed, and one without an anomaly."""
