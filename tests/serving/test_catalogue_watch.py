import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from serving_shop import shop_catalogue

import tfrec_llm as tr
from tfrec_llm.serving import CatalogueWatch, ExportedModel


def test_a_new_item_is_served_as_soon_as_the_catalogue_has_it(shop, tmp_path, caplog):
    catalogue, folder = tmp_path / "items.parquet", tmp_path / "serving"
    shop.save(tmp_path / "shop.tfrec")
    pq.write_table(shop_catalogue().table, catalogue)
    watch = CatalogueWatch(tmp_path / "shop.tfrec", catalogue, folder, options=["-k", "7"])
    assert not watch.check()
    new = pa.table({"item": ["hats-new"], "kind": ["hats"], "price": [2.0]})
    pq.write_table(pa.concat_tables([shop_catalogue().table, new]), catalogue)
    assert watch.check()
    assert not watch.check()
    model = ExportedModel(folder / "1")
    assert model.description["k"] == 7
    (scores,) = model.score([["hats-1", "hats-2"]], [["hats-new", "hats-3"]])
    loaded = tr.Recommender.load(tmp_path / "shop.tfrec")
    loaded.extend(["hats-new"], catalogue=tr.data.Catalogue(new))
    expected = loaded.recommend(
        histories=[["hats-1", "hats-2"]], candidates=["hats-new", "hats-3"], k=2
    ).set_index("item")["score"]
    np.testing.assert_allclose(scores, expected[["hats-new", "hats-3"]], atol=1e-5)
    catalogue.write_text("damaged")
    assert not watch.check()
    assert "cannot be taken up" in caplog.text
