import keras
import pytest

from circle_tf.fine_tuning import blocks


def names(net):
    return [(block.name, [layer.name for layer in block.layers]) for block in blocks.blocks_of(net)]


def net_of(make):
    inputs = keras.Input((8, 8, 3))
    return keras.Model(inputs, make(inputs))


def conv(name=None):
    return keras.layers.Conv2D(3, 1, name=name)


def norm(name=None):
    return keras.layers.BatchNormalization(name=name)


def test_layers_are_in_the_block_that_they_are_named_for_wherever_they_are_nested():
    def make(x):
        x = norm("bn1")(conv("conv1")(x))
        for number in (1, 2):
            inner = norm(f"conv2_block{number}_1_bn")(conv(f"conv2_block{number}_1_conv")(x))
            x = keras.layers.Add()([conv(f"conv2_block{number}_0_conv")(x), inner])
        x = norm("post_bn")(x)
        return norm("top_bn")(conv("top_conv")(x))

    found = names(keras.Sequential([keras.Input((8, 8, 3)), net_of(make)], name="whole"))
    short = [name.rpartition("/")[2] for name, _ in found]
    assert short == ["conv1", "conv2_block1", "conv2_block2", "top_conv"]
    assert found[0][1] == ["conv1", "bn1"] and found[3][1] == ["top_conv", "top_bn"]
    assert sorted(found[1][1]) == [f"conv2_block1_{n}" for n in ("0_conv", "1_bn", "1_conv")]
    assert found[2][1][-1] == "post_bn" and len(found[2][1]) == 4


def test_without_names_a_block_ends_where_branches_merge():
    def make(x):
        x = norm("b")(conv("a")(x))
        x = keras.layers.Add()([x, conv("d")(conv("c")(x))])
        x = keras.layers.Concatenate()([conv("e")(x), conv("f")(x)])
        return norm("g")(x)

    assert names(net_of(make)) == [("a", ["a", "b", "c", "d"]), ("e", ["e", "f", "g"])]


def test_of_a_chain_without_names_each_kernel_begins_a_block():
    found = names(net_of(lambda x: conv("c")(norm("b")(conv("a")(x)))))
    assert found == [("a", ["a", "b"]), ("c", ["c"])]


class Encoder(keras.layers.Layer):
    """Holds its blocks in a list, as those of KerasHub's transformers do."""

    def __init__(self):
        super().__init__()
        self.inner = [keras.layers.Dense(4, name=f"transformer_block_{n}") for n in (1, 2)]

    def call(self, x):
        for layer in self.inner:
            x = layer(x)
        return x


def test_an_encoder_is_taken_apart():
    x = keras.Input((4,))
    net = keras.Model(x, Encoder()(keras.layers.Dense(4, name="patches")(x)))
    assert [name.rpartition("/")[2] for name, _ in names(net)] == [
        "patches",
        "transformer_block_1",
        "transformer_block_2",
    ]


def test_a_net_without_weights_is_refused():
    with pytest.raises(ValueError, match="Expected a backbone with weights; 'nothing' has none"):
        blocks.blocks_of(keras.Sequential([keras.Input((2,)), keras.layers.ReLU()], name="nothing"))


BLOCKS = [
    blocks.Block("net/stem", []),
    blocks.Block("net/conv4_block1", []),
    blocks.Block("net/conv5_block1", [keras.layers.Dense(1, name="conv5_block1_1_conv")]),
    blocks.Block("net/conv5_block2", []),
]


@pytest.mark.parametrize(
    ("start", "first"),
    [
        *((None, 0), (0.0, 0), (0, 0), (0.25, 1), (0.3, 2), (0.75, 3), (1.0, 4)),
        *(("stem", 0), ("net/conv4_block1", 1), ("conv5", 2), ("conv5_block1_1_conv", 2)),
        ("conv5_block2", 3),
    ],
)
def test_where_training_begins(start, first):
    assert blocks.first_trained(BLOCKS, start) == first


def test_what_is_no_block_is_refused():
    with pytest.raises(ValueError, match=r"no block or layer 'conv5_blok2'.*'conv5_block2'"):
        blocks.first_trained(BLOCKS, "conv5_blok2")
    with pytest.raises(ValueError, match="no block or layer 'x'. Its blocks: stem, conv4_block1"):
        blocks.first_trained(BLOCKS, "x")
    with pytest.raises(ValueError, match=r"a share from 0 to 1 of the blocks.*found 1\.5"):
        blocks.first_trained(BLOCKS, 1.5)
