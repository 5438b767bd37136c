"""Named arrays in .npz files: never pickled, the same bytes for the same arrays, one sentence for a bad file."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np

from edgewright.errors import InputError, no_file
from edgewright.types import Array, Arrays


def read_npz(path: Path, error: type[InputError]) -> dict[str, Array]:
    """The arrays of an .npz file. Raises: `error` when there is none, or it holds anything but plain arrays."""
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except FileNotFoundError:
        raise error(no_file(path)) from None
    except (OSError, ValueError, EOFError, KeyError, AttributeError, TypeError, zipfile.BadZipFile) as cause:
        raise error(f"{path} cannot be read as an .npz of plain arrays: {cause}") from cause


def npz_bytes(arrays: Arrays) -> bytes:
    """The bytes of an .npz."""
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **dict(arrays))
    return buffer.getvalue()
