"""Names for users that tell nobody who they are."""

import hashlib
import hmac
import os


class UserKey:
    """Turns users' ids into keyed hashes.

    Args:
        key: A secret; the same one gives the same names, in every process. None makes one that
            is lost with this object.

    Example:
        >>> key = UserKey("a secret")
        >>> key.of("anna") == key.of("anna"), key.of("anna") == UserKey().of("anna")
        (True, False)
    """

    def __init__(self, key: str | None = None):
        self._key = (key or os.urandom(32).hex()).encode()

    def of(self, user: str) -> str:
        """Returns 16 hexadecimal digits."""
        digest = hmac.new(self._key, user.encode("utf-8", "surrogatepass"), hashlib.sha256)
        return digest.hexdigest()[:16]
