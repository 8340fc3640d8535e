"""Which version of a model answers which user."""

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path

from tfrec_llm.data.atomic import replace_file
from tfrec_llm.errors import DataFileError

# Beside the folders of the versions; TensorFlow Serving takes no notice of it.
FILE = "traffic.json"


def read_traffic(folder: Path) -> dict[int, float] | None:
    """Returns the shares of users by version; None where all get the newest.

    Args:
        folder: Of the model.

    Raises:
        DataFileError: If the file is damaged.
    """
    try:
        shares = json.loads((folder / FILE).read_text())["shares"]
        return checked({int(version): float(share) for version, share in shares.items()})
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataFileError(f"{folder / FILE} cannot be read: {error}") from error


def write_traffic(folder: Path, shares: Mapping[int, float] | None) -> None:
    """Writes the shares of users by version; servers that watch the folder follow.

    Args:
        folder: Of the model.
        shares: They add up to one; None gives all users the newest version.

    Raises:
        ValueError: If they do not add up to one.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> write_traffic(folder, {1: 0.9, 2: 0.1})
        >>> read_traffic(folder)
        {1: 0.9, 2: 0.1}
    """
    if shares is None:
        (folder / FILE).unlink(missing_ok=True)
        return
    written = {str(version): share for version, share in checked(shares).items()}
    with replace_file(folder / FILE) as temporary:
        temporary.write_text(json.dumps({"shares": written}))


def checked(shares: Mapping[int, float]) -> dict[int, float]:
    """Returns shares that add up to one.

    Raises:
        ValueError: If they do not.
    """
    if not shares or any(not 0 <= share <= 1 for share in shares.values()):
        raise ValueError(f"shares lie between 0 and 1, got {dict(shares)}.")
    if not math.isclose(sum(shares.values()), 1.0, abs_tol=1e-6):
        raise ValueError(f"shares add up to 1, got {sum(shares.values())}.")
    return dict(shares)


def version_for(user: str, shares: Mapping[int, float]) -> int:
    """Returns the version of a user: always the same while the shares stay.

    While the share of the newest version grows, who has it keeps it.

    Args:
        user: Raw id, as text.
        shares: By version; what they add up to is the whole.

    Example:
        >>> sum(version_for(str(user), {1: 0.9, 2: 0.1}) == 2 for user in range(1000))
        99
    """
    digest = hashlib.sha256(b"traffic:" + user.encode("utf-8", "surrogatepass")).digest()
    place = int.from_bytes(digest[:8], "big") / 2**64 * sum(shares.values())
    for version in sorted(shares, reverse=True):
        place -= shares[version]
        if place < 0:
            return version
    return min(shares)
