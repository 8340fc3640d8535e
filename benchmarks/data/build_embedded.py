"""Rebuilds the Parquet files of tfrec_llm/data/files from the originals of the UCI repository.

    python benchmarks/data/build_embedded.py --eshop "e-shop clothing 2008.csv"
    python benchmarks/data/build_embedded.py --online-retail "Online Retail.xlsx"

The first is data set 553 (https://doi.org/10.24432/C5QK7X), the second 352
(https://doi.org/10.24432/C5BW33); .csv, .csv.xz, .parquet and .xlsx (with openpyxl) are read.
tfrec_llm/data/files/ATTRIBUTION.md says what is changed on the way.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

FILES = Path(__file__).parents[2] / "tfrec_llm" / "data" / "files"

CATEGORIES = ["trousers", "skirts", "blouses", "sale"]
COLOURS = ["beige", "black", "blue", "brown", "burgundy", "grey", "green", "navy blue"]
COLOURS += ["many colours", "olive", "pink", "red", "violet", "white"]
LOCATIONS = ["top left", "top middle", "top right", "bottom left", "bottom middle", "bottom right"]
PHOTOGRAPHY = ["en face", "profile"]
PRICE_LEVELS = ["above the category's average", "not above the category's average"]
COUNTRIES = """Australia, Austria, Belgium, British Virgin Islands, Cayman Islands,
Christmas Island, Croatia, Cyprus, Czech Republic, Denmark, Estonia, unidentified, Faroe Islands,
Finland, France, Germany, Greece, Hungary, Iceland, India, Ireland, Italy, Latvia, Lithuania,
Luxembourg, Mexico, Netherlands, Norway, Poland, Portugal, Romania, Russia, San Marino, Slovakia,
Slovenia, Spain, Sweden, Switzerland, Ukraine, United Arab Emirates, United Kingdom, USA, .biz,
.com, .int, .net, .org"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--eshop", type=Path, help="data set 553")
    parser.add_argument("--online-retail", type=Path, help="data set 352")
    parser.add_argument("--folder", type=Path, default=FILES, help="where to write")
    arguments = parser.parse_args()
    if not (arguments.eshop or arguments.online_retail):
        parser.error("give --eshop, --online-retail, or both")
    if arguments.eshop:
        log, catalogue = eshop(read(arguments.eshop, separator=";"))
        write(log, arguments.folder / "eshop.parquet")
        write(catalogue, arguments.folder / "eshop_catalogue.parquet")
    if arguments.online_retail:
        log, catalogue = online_retail(read(arguments.online_retail))
        write(log, arguments.folder / "online_retail.parquet")
        write(catalogue, arguments.folder / "online_retail_catalogue.parquet")


def read(path: Path, *, separator: str = ",") -> pd.DataFrame:
    if path.suffix == ".parquet":
        return pd.read_parquet(path)
    as_text = {"InvoiceNo": str, "StockCode": str, "Description": str}
    if path.suffix in (".xlsx", ".xls"):
        return pd.read_excel(path, dtype=as_text)
    return pd.read_csv(path, sep=separator, dtype=as_text)


def eshop(clicks: pd.DataFrame) -> tuple[pa.Table, pa.Table]:
    """Returns the clicks, and the products with the words of the code book."""
    clicks = clicks.rename(columns={"page 2 (clothing model)": "item", "session ID": "user"})
    # The shop logged no time of day; seconds stand for the order of the clicks in a session.
    time = pd.to_datetime(clicks[["year", "month", "day"]])
    time += pd.to_timedelta(clicks["order"], unit="s")
    log = pa.table(
        {
            "user": pa.array(clicks["user"], pa.int32()),
            "item": words(clicks["item"]),
            "time": pa.array(time.to_numpy().astype("datetime64[s]")),
            "country": words(clicks["country"], COUNTRIES.replace("\n", " ").split(", ")),
        }
    )
    product = clicks.groupby("item").agg(lambda values: values.mode().iloc[0])
    catalogue = pa.table(
        {
            "item": pa.array(product.index.to_list()),
            "category": words(product["page 1 (main category)"], CATEGORIES),
            "colour": words(product["colour"], COLOURS),
            "price": pa.array(product["price"], pa.float64()),
            "photography": words(product["model photography"], PHOTOGRAPHY),
            "price_level": words(product["price 2"], PRICE_LEVELS),
            "page": words("page " + product["page"].astype(str)),
            "location": words(product["location"], LOCATIONS),
        }
    )
    return log, catalogue


def online_retail(lines: pd.DataFrame) -> tuple[pa.Table, pa.Table]:
    """Returns the invoice lines, and the products with a title and a price each."""
    item = lines["StockCode"].astype(str)
    invoice = lines["InvoiceNo"].astype(str)
    number = invoice.str.lstrip("AC").astype(np.int32)
    cancelled = invoice.str.startswith("C")
    stock_keeping = ~cancelled & (lines["Quantity"].le(0) | invoice.str.startswith("A"))
    behavior = np.select([cancelled, stock_keeping], ["cancel", "adjustment"], "purchase")
    log = pa.table(
        {
            "user": pa.array(lines["CustomerID"].astype("Int32")),
            "item": words(item),
            "time": pa.array(lines["InvoiceDate"].to_numpy().astype("datetime64[s]")),
            "behavior": words(pd.Series(behavior)),
            "quantity": pa.array(lines["Quantity"], pa.int32()),
            "price": pa.array(lines["UnitPrice"], pa.float64()),
            "invoice": pa.array(number),
            "country": words(lines["Country"]),
        }
    )
    # Remarks such as "damages" stand on lines without a price, so titles are taken from sales.
    sold = behavior == "purchase"
    sold &= lines["UnitPrice"].gt(0)
    titles = lines["Description"].str.strip().str.replace(r"\s+", " ", regex=True)
    product = pd.DataFrame(
        {
            "title": titles[sold].groupby(item[sold]).agg(most_frequent),
            "price": lines["UnitPrice"][sold].groupby(item[sold]).median(),
        }
    ).reindex(sorted(item.unique()))
    catalogue = pa.table(
        {
            "item": pa.array(product.index.to_list()),
            "title": pa.array(product["title"]),
            "price": pa.array(product["price"], pa.float64(), from_pandas=True),
        }
    )
    return log, catalogue


def most_frequent(values: pd.Series) -> str | None:
    counts = values.value_counts()
    return None if counts.empty else counts.index[0]


def words(codes: pd.Series, names: list[str] | None = None) -> pa.Array:
    """Returns the names of codes 1, 2, ... (or the values themselves), each stored once."""
    values = codes if names is None else np.array(names)[codes.to_numpy() - 1]
    return pa.array(values).cast(pa.string()).dictionary_encode()


def write(table: pa.Table, path: Path) -> None:
    """Writes a table as small as Parquet gets it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    encoded = [name for name in table.column_names if pa.types.is_dictionary(table[name].type)]
    integers = [name for name in table.column_names if name in ("user", "time", "invoice")]
    pq.write_table(
        table,
        path,
        compression="zstd",
        compression_level=22,
        use_dictionary=[*encoded, "price", "quantity"],
        column_encoding=dict.fromkeys(integers, "DELTA_BINARY_PACKED"),
        data_page_size=16 * 2**20,
        row_group_size=2**20,
        write_statistics=False,
    )
    print(f"{path.name}: {table.num_rows:,} rows, {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
