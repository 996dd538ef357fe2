"""What a person types is understood, or answered with what to write."""

from pathlib import Path

import pytest

from catchup.cli.commands import COMMANDS, main
from catchup.cli.spelling import respell, split_list


def spelt(text):
    return " ".join(respell(text.split(), COMMANDS))


@pytest.mark.parametrize(
    ("typed", "read"),
    [
        ("compare --methods a,b --out c", "compare --methods a b --out c"),
        ("compare --methods=a,b --seeds=0,1", "compare --methods a b --seeds 0 1"),
        ("compare --methods a b:x=1,y=[0,1],c", "compare --methods a b:x=1,y=[0,1] c"),
        ("budget --budgets 20,50 100 --seeds 0,", "budget --budgets 20 50 100 --seeds 0"),
        ("train --layers 0,1 --lr 0.1", "train --layers 0 1 --lr 0.1"),
        ("train --regularisers dropblock,augmix:m=1,w=2", None),
        ("evaluate runs/a --tests clean fgsm", "evaluate runs/a --tests clean,fgsm"),
        ("evaluate --tests clean fgsm runs/a", "evaluate --tests clean,fgsm runs/a"),
        ("evaluate --tests clean,fgsm", "evaluate --tests clean,fgsm"),
        ("report runs/a --table 1 2", "report runs/a --table 1 2"),
        ("train --method=cutmix --alpha 1", "train --method=cutmix --alpha 1"),
        ("train --method baseline --momentum 0.5", "train --method baseline --momentum 0.5"),
        ("--version", "--version"),
    ],
)
def test_lists_are_read_either_way(typed, read):
    wanted = read or "train --regularisers dropblock augmix:m=1,w=2"
    assert spelt(typed) == wanted
    assert spelt(wanted) == wanted  # what is right stays


def test_a_list_is_parted_where_a_person_would():
    assert split_list("a") == ["a"] and split_list("0,1,2") == ["0", "1", "2"]
    assert split_list("a:x=(1,2),y=3,b") == ["a:x=(1,2),y=3", "b"]


def test_a_folder_behind_the_tests_is_no_test(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "fgsm").mkdir()
    assert spelt("evaluate --tests clean fgsm") == "evaluate --tests clean fgsm"
    assert spelt("evaluate --tests fgsm clean") == "evaluate --tests fgsm,clean"


# docs/commands.md shows these
MISTAKES = {
    "trian --data digits": "unknown command 'trian'. Did you mean 'train'?",
    "train digits": "`catchup train` takes no word without an option, got 'digits': write for"
    " example --data digits",
    "train --method baseline --layers 0": "baseline has no setting --layers; of the methods, these"
    " have it: catchup, randomchannel",
    "train --method baseline --layers=0": "baseline has no setting --layers",
}


@pytest.mark.parametrize("typed", MISTAKES)
def test_mistakes_are_answered_with_what_to_write(typed, capsys):
    assert main(typed.split()) == 2
    said = capsys.readouterr()
    assert said.err.startswith(f"catchup: {MISTAKES[typed]}") and not said.out
    assert "Traceback" not in said.err


def test_the_page_shows_them():
    page = (Path(__file__).parents[2] / "docs" / "commands.md").read_text()
    for typed, answer in list(MISTAKES.items())[:3]:
        assert f"| `catchup {typed}` | {answer}" in page
