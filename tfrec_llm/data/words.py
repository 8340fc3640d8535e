"""The words of a text."""

import pyarrow as pa
import pyarrow.compute as pc


def words(texts: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """Cuts texts into words: lower-case runs of letters and digits of any script.

    Full-width letters count as the ordinary ones, apostrophes inside of words fall away, and a
    Chinese character is a word of its own, as Chinese is written without spaces.

    Args:
        texts: Strings; nulls stay nulls.

    Returns:
        Lists of strings; an empty list where a text has no word.

    Example:
        >>> words(pa.array(["White women's T-shirt", "红色 dress, 2024", "?!"])).to_pylist()
        [['white', 'womens', 't', 'shirt'], ['红', '色', 'dress', '2024'], []]
    """
    texts = pc.utf8_lower(pc.utf8_normalize(texts, form="NFKC"))
    texts = pc.replace_substring_regex(texts, "['\u2019]", "")
    texts = pc.replace_substring_regex(texts, r"(\p{Han})", r" \1 ")
    texts = pc.utf8_trim(pc.replace_substring_regex(texts, r"[^\p{L}\p{M}\p{N}]+", " "), " ")
    none = pa.scalar([], pa.list_(pa.string()))
    return pc.if_else(pc.equal(texts, ""), none, pc.split_pattern(texts, " "))
