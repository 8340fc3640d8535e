"""What the command line may say of a version that is exported."""

import argparse
from typing import TYPE_CHECKING, Any

from tfrec_llm.cli.argument_types import names, positive
from tfrec_llm.cli.log_files import PLAIN, read_table
from tfrec_llm.cli.recommend import as_ids
from tfrec_llm.cli.usage_error import UsageError

if TYPE_CHECKING:
    import pyarrow as pa

    from tfrec_llm.data.feature_table import UserTable


def add_export_arguments(parser: Any) -> None:
    """Adds the arguments to a parser or a group of one."""
    parser.add_argument(
        "-k",
        type=positive,
        default=10,
        metavar="K",
        help="items a user where a request names no number (default: %(default)s)",
    )
    parser.add_argument("--candidates", type=names, metavar="X,Y", help="recommend only these")
    parser.add_argument("--exclude", type=names, metavar="X,Y", help="never recommend these")
    parser.add_argument(
        "--precision",
        choices=["float32", "float16", "int8"],
        default="float32",
        help="of the items' vectors (default: %(default)s)",
    )
    parser.add_argument(
        "--index",
        choices=["exact", "approximate", "product"],
        default="exact",
        help="how the server finds the best items; all but exact need the extra [faiss] "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--profiles",
        metavar="FILE",
        help="CSV or Parquet, what is known of the users: new ones are ranked for by it",
    )
    parser.add_argument(
        "--profiles-key", metavar="COLUMN", help="its column of the user ids (default: user)"
    )


def export_options(arguments: argparse.Namespace, recommender: Any) -> dict[str, Any]:
    """Returns the options of `Recommender.export` that the arguments ask for."""
    if arguments.profiles_key and not arguments.profiles:
        raise UsageError("--profiles-key goes with --profiles.")
    profiles = None
    if arguments.profiles is not None:
        key = arguments.profiles_key or "user"
        profiles = _read_profiles(arguments.profiles, key, recommender.histories.user_ids.type)
    kind = recommender.vocabulary.ids.type
    return {
        "k": arguments.k,
        "candidates": as_ids(arguments.candidates, kind, "items"),
        "exclude": as_ids(arguments.exclude, kind, "items"),
        "precision": arguments.precision,
        "index": arguments.index,
        "profiles": profiles,
    }


def _read_profiles(path: str, key: str, kind: "pa.DataType") -> "UserTable":
    import pyarrow as pa

    from tfrec_llm.data.feature_table import UserTable

    ids = "string" if pa.types.is_string(kind) else None
    return UserTable(read_table([path], PLAIN, id_names=[key], ids=ids), key=key, ids=ids)
