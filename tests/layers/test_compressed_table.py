import keras
import numpy as np
import pytest
from keras import ops
from layer_test import run_layer_test

from tfrec_llm.layers import CompressedTable
from tfrec_llm.layers.compressed_table import k_means

ROWS, WIDTH = 500, 16
OPTIONS = [{"kind": "float16"}, {"kind": "int8"}, {"kind": "product", "num_codes": 4}]


@pytest.fixture(scope="module")
def vectors():
    return np.random.default_rng(0).normal(0, 0.1, (ROWS, WIDTH)).astype("float32")


def decoded(table):
    return ops.convert_to_numpy(table.table)


@pytest.mark.parametrize("options", OPTIONS)
def test_compressed_tables_are_sound_layers(options):
    run_layer_test(
        CompressedTable,
        {"vocab_size": 20, "emb_dim": 8, **options},
        np.array([[1, 5, 19], [0, 0, 2]]),
        output_shape=(2, 3, 8),
    )


def test_half_precision_rounds_each_number(vectors):
    table = decoded(CompressedTable.of(vectors, kind="float16", num_exact=0))
    np.testing.assert_array_equal(table, vectors.astype("float16").astype("float32"))


def test_eight_bits_round_to_steps_of_each_rows_largest_number(vectors):
    table = decoded(CompressedTable.of(vectors, kind="int8", num_exact=0))
    for row, found in zip(vectors, table, strict=True):
        step = np.abs(row).max() / 127
        np.testing.assert_allclose(found, np.rint(row / step) * step, atol=1e-7)
    assert np.abs(table - vectors).max() <= np.abs(vectors).max() / 254 * 1.001


def test_a_row_of_zeros_stays_zero(vectors):
    with_zeros = vectors.copy()
    with_zeros[7] = 0
    for kind in ("float16", "int8"):
        assert not decoded(CompressedTable.of(with_zeros, kind=kind))[7].any()


def test_product_codes_name_the_nearest_centroid_of_every_part(vectors):
    layer = CompressedTable.of(vectors, kind="product", num_codes=4, num_exact=0)
    centroids, codes = (ops.convert_to_numpy(w) for w in (layer.centroids, layer.codes))
    assert centroids.shape == (4, 256, 4)
    for row in range(0, ROWS, 50):
        for part in range(4):
            own = vectors[row, 4 * part : 4 * part + 4]
            distances = np.square(centroids[part] - own).sum(axis=1)
            assert distances[codes[row, part]] == pytest.approx(distances.min(), abs=1e-6)
            np.testing.assert_array_equal(
                decoded(layer)[row, 4 * part : 4 * part + 4], centroids[part, codes[row, part]]
            )


def test_more_codes_are_nearer_and_the_same_seed_repeats(vectors):
    def error(num_codes, seed=0):
        layer = CompressedTable.of(vectors, kind="product", num_codes=num_codes, seed=seed)
        return np.square(decoded(layer) - vectors).mean()

    assert error(8) < error(4) < error(2) < np.square(vectors).mean()
    assert error(4) == error(4)
    assert error(4, seed=1) != error(4)


@pytest.mark.parametrize("options", OPTIONS)
def test_reserved_rows_are_kept_and_rows_are_those_of_the_table(options, vectors):
    layer = CompressedTable.of(vectors, **options)
    np.testing.assert_array_equal(decoded(layer)[:3], vectors[:3])
    items = np.array([[0, 2, 3], [499, 17, 3]])
    np.testing.assert_array_equal(ops.convert_to_numpy(layer(items)), decoded(layer)[items])


def test_a_small_catalogue_is_kept_whole_by_its_codes():
    vectors = np.random.default_rng(0).normal(size=(30, 8)).astype("float32")
    layer = CompressedTable.of(vectors, kind="product", num_codes=2)
    np.testing.assert_allclose(decoded(layer), vectors, atol=1e-6)


def test_bytes_per_item_are_those_of_the_weights(vectors):
    for options, expected in zip(OPTIONS, (32, 20, 4), strict=True):
        layer = CompressedTable.of(vectors, **options)
        assert layer.bytes_per_item == expected
        grown = [w for w in layer.weights if w.shape[0] == ROWS]
        size = sum(np.prod(w.shape) * ops.convert_to_numpy(w).itemsize for w in grown)
        assert size == ROWS * expected


def test_k_means_equals_a_plain_one():
    rng = np.random.default_rng(0)
    vectors = (rng.normal(size=(200, 3)) + 5 * rng.integers(0, 3, (200, 1))).astype("float32")
    found = k_means(vectors, 4, np.random.default_rng(1), rounds=10)
    centroids = vectors[np.random.default_rng(1).choice(200, 4, replace=False)].astype("float64")
    for _ in range(10):
        nearest = [np.argmin([np.sum((v - c) ** 2) for c in centroids]) for v in vectors]
        for number in range(4):
            own = [v for v, of in zip(vectors, nearest, strict=True) if of == number]
            centroids[number] = np.mean(own, axis=0)
    np.testing.assert_allclose(found, centroids, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "int4"}, "kind must be one of.*'int4'"),
        ({"kind": "product", "num_codes": 5}, "must divide emb_dim 16, got 5"),
        ({"kind": "int8", "num_codes": 4}, 'num_codes is for "product" only'),
    ],
)
def test_what_does_not_fit_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        CompressedTable(ROWS, WIDTH, **options)


def test_nothing_of_it_is_trained(vectors):
    assert CompressedTable.of(vectors).trainable_weights == []
    assert keras.saving.get_registered_name(CompressedTable) == "tfrec_llm>CompressedTable"
