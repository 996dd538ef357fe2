"""Names with settings as a person types them: what they mean, and what a slip gets."""

import pytest

from catchup.utils.choices import build, parse_spec


@pytest.mark.parametrize(
    ("text", "settings"),
    [
        ("m", {}),
        ("m:alpha=0.2,prob=0.5", {"alpha": 0.2, "prob": 0.5}),
        ("m:a=-1e-3,b=7,c=+2", {"a": -0.001, "b": 7, "c": 2}),
        ("m:saliency=ap", {"saliency": "ap"}),
        ("m:saliency='ap',block=\"layer1.0, then\"", {"saliency": "ap", "block": "layer1.0, then"}),
        ("m:a=True,b=False,c=true,d=false", {"a": True, "b": False, "c": True, "d": False}),
        ("m:a=None,b=none", {"a": None, "b": "none"}),  # Catch-up Mix has an input mix called none
        (
            "m:layers=[0,1,2],blocks=(stem,layer1.0)",
            {"layers": (0, 1, 2), "blocks": ("stem", "layer1.0")},
        ),
        (
            "m:a=(0),b=[0,],c=[],d=((1,2),[x,None])",
            {"a": (0,), "b": (0,), "c": (), "d": ((1, 2), ("x", None))},
        ),
        (
            "m:regularisers=[cutout,dropblock:block=5]",
            {"regularisers": ("cutout", "dropblock:block=5")},
        ),
        ("m: a = 1 , b = [ x , y ]", {"a": 1, "b": ("x", "y")}),
    ],
)
def test_a_name_and_its_settings(text, settings):
    name, found = parse_spec(text)
    assert (name, found) == ("m", settings)
    assert [type(value) for value in found.values()] == [type(value) for value in settings.values()]


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        ":a=1",
        "m:",
        "m:a",
        "m:a=",
        "m:=1",
        "m:a=1,",
        "m:,a=1",
        "m:2a=1",
        "m:a=1/8",
        "m:a=1 2",
        "m:a=1j",
        "m:a=b'x'",
        "m:a={1}",
        "m:a=[1",
        "m:a=1]",
        "m:a=[1)",
        "m:a=)(",
        "m:a=(1)(2)",
        "m:a=(,)",
        "m:a=[1,,2]",
        "m:a='x",
        "m b",
        "m=1",
        "m:a=" + "9" * 5000,
        3,
        None,
    ],
)
def test_what_is_not_written_so_is_refused_in_one_sentence(text):
    with pytest.raises(ValueError) as error:
        parse_spec(text, "dial")
    said = str(error.value)
    assert said.startswith("a dial is written name or name:setting=value,…") and (
        said.endswith(f"got {text!r}") or said.endswith("… (5006 characters)")
    )


def test_a_setting_given_twice_is_refused():
    with pytest.raises(ValueError, match="a setting stands twice in 'm:a=1,b=2,a=1'"):
        parse_spec("m:a=1,b=2,a=1")


def test_what_is_built_gets_the_settings_and_the_rest():
    def make(name, alpha=1.0, seed=None):
        if alpha < 0:
            raise ValueError(f"alpha must not be negative, got {alpha}")
        return name, alpha, seed

    assert build(make, "m:alpha=0.5", seed=3) == ("m", 0.5, 3)
    for text, words in (
        ("m:alpha=-1", "^alpha must not be negative, got -1$"),
        ("m:alpha=much", "a value in 'm:alpha=much' does not fit its setting: '<' not supported"),
        ("m:seed=1", "seed cannot be set in 'm:seed=1': it is given apart"),
        ("m:name=x", "a value in 'm:name=x' does not fit"),
    ):
        with pytest.raises(ValueError, match=words):
            build(make, text, seed=3)
