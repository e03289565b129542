import pytest

from configs import base
from trainers.cli import commands
from trainers.training import run_models
from trainers.tuning import spaces


def test_every_loss_has_a_usual_space_that_its_recipe_takes():
    assert set(spaces.PUBLISHED) == set(run_models.LOSSES)
    for loss in run_models.LOSSES:
        for field, values in spaces.usual(loss).items():
            section, name = field.split(".")
            assert name in base.get_config()[section]
            assert values.low < values.high


@pytest.mark.parametrize(
    "text, expected",
    [
        ("steps=100:400", spaces.Range(100, 400, whole=True)),
        ("optimizer.learning_rate=1e-4:1e-2:log", spaces.Range(1e-4, 1e-2, log=True)),
        ("loss.margin=0:0.5", spaces.Range(0.0, 0.5)),
        ("optimizer.name=adam,sgd", spaces.Choice(("adam", "sgd"))),
        ("loss.fused_update=true,false", spaces.Choice((True, False))),
        ("loss.gamma=16,64", spaces.Choice((16.0, 64.0))),
    ],
)
def test_ranges_and_choices(text, expected):
    field, values = spaces.parse(text, base.get_config())
    assert (field, values) == (text.partition("=")[0], expected)


@pytest.mark.parametrize(
    "text, message",
    [
        ("loss.gama=1:2", "FIELD=LOW:HIGH.*'loss.gama=1:2'"),
        ("loss=1:2", "with a field of configs/base.py"),
        ("loss.gamma", "FIELD=LOW:HIGH"),
        ("loss.gamma=2:1", "two numbers, the lower first.*'2:1'"),
        ("loss.gamma=0:1:log", "above 0 with :log"),
        ("loss.gamma=a:b", "two numbers"),
        ("steps=1.5:2", "two whole numbers"),
        ("steps=many,few", "Expected a number; found 'many'"),
        ("loss.fused_update=1,0", "true or false; found '1'"),
    ],
)
def test_what_is_no_space_is_refused(text, message):
    with pytest.raises(commands.ConfigError, match=message):
        spaces.parse(text, base.get_config())
