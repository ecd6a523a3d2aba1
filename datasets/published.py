"""What is known of a published data set: its files, their checksums, its licence."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class PublishedFile:
    """One file of a data set.

    Attributes
    ----------
    path : str
        Where the file lies, relative to the data folder, with forward slashes.
    url : str or None
        Where it is published; None where the file is made of what is published, as its loader
        says.
    sha256 : str
        Checksum of the bytes, 64 hexadecimal digits.
    """

    path: str
    url: str | None
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
