"""Every kind of the corpus ends in one clear error of ours or is read as it should be; hostile code
never runs.

Clear: one line of at most 400 characters beside the path, which it names, with the cause and what
to do; never the advice to let a file run code. Afterwards the folders are as they were, byte for
byte.
"""

import hashlib
import os
import re
import shutil
import signal
import socket
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import hostile
import hostile_archives
import numpy as np
import pytest
import torch

import catchup.data as data
from benchmarks import method_cost as cost
from catchup import Settings, train
from catchup.cli.commands import main
from catchup.data.files import archives, decode
from catchup.data.files.archives import Archive, obtain, unpack
from catchup.experiments import compare
from catchup.experiments.evaluation import evaluate
from catchup.experiments.report import cells as report
from catchup.measures import corruption
from catchup.mixers.regularisers import parse
from catchup.training import checkpoint
from catchup.training.checkpoint import CheckpointError
from catchup.training.folder import read_metrics

NEXT = re.compile(
    r"\b(train|restore|give|get|make|mend|remove|pull|install|name|unpack|run|evaluate|take|put|choose|"
    r"leave)\b",
    re.I,
)
# of a value: what it has to be
WANTED = re.compile(r"\b(must|needs|takes|fit|is written|unknown|twice|are|is two)\b")
TINY = ["--width", "4", "--epochs", "1", "--subset", "4", "--device", "cpu"]


@pytest.fixture(autouse=True)
def canary(tmp_path_factory, monkeypatch):
    """Hostile code would make this folder."""
    place = tmp_path_factory.mktemp("canary") / "hatched"
    monkeypatch.setenv(hostile.CANARY, str(place))
    yield
    assert not place.exists()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of a run of one epoch, evaluated."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    train(
        Settings(width=4, epochs=1, subset=5, method="baseline", device="cpu"),
        folder,
        progress=False,
    )
    evaluate(folder, ("clean",), device="cpu", progress=False)
    return folder


@pytest.fixture
def run(whole, tmp_path):
    return Path(shutil.copytree(whole, tmp_path / "run"))


def content(folder: Path) -> dict:
    """{path: bytes} of everything in a folder, but for locks."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
        if path.name != ".lock"
    }


def check_sentence(said: str, *named: Path) -> None:
    """One line, short, naming the paths, with something to do; without a path, with what the value
    has to be.
    """
    assert all(str(path) in said for path in named), said
    bare = said
    for path in named:
        bare = bare.replace(str(path), "PATH")
    assert len(bare) <= 400 and "\n" not in said and "Traceback" not in said, said
    assert "weights_only" not in said and (NEXT if named else WANTED).search(bare), said


def refused(call, kind=ValueError, *named: Path) -> str:
    with pytest.raises(kind) as found:
        call()
    assert type(found.value) in (
        ValueError,
        CheckpointError,
        FileNotFoundError,
        archives._RefusedArchive,
    )
    cause = found.value.__cause__
    assert cause is None or "weights_only" not in str(cause)
    check_sentence(str(found.value), *named)
    return str(found.value)


def every_kind() -> list[tuple[str, str]]:
    """(group, name) of every kind, those below that are made in a test of their own among them."""
    groups = (
        "BODIES",
        "FILES",
        "STATES",
        "CACHES",
        "UNREADABLE",
        "READABLE",
        "JSON",
        "COMMANDS",
        "SETTINGS",
        "SPECS",
    )
    return [(group, name) for group in groups for name in getattr(hostile, group)] + [
        (group, name)
        for group, names in (
            ("PLACES", PLACES),
            ("LISTS", LISTS),
            ("KILLED", KILLED),
            ("ARCHIVES", hostile_archives.ARCHIVES),
        )
        for name in names
    ]


def test_the_corpus_has_more_than_60_kinds():
    kinds = every_kind()
    assert len(set(kinds)) == len(kinds) >= 60, len(kinds)
    contents = [
        make(b"good")
        for name, make in hostile.BODIES.items()
        if name not in ("compressed members",)
    ]
    assert len({bytes(made) for made in contents}) >= len(contents) - 1  # every kind is another one


# Checkpoints


def trailed(body: bytes) -> bytes:
    """The bytes with a right mark and checksum behind them."""
    return body + checkpoint.MARK + hashlib.sha256(body).hexdigest().encode()


@pytest.mark.parametrize("name", hostile.BODIES)
@pytest.mark.parametrize("marked", [False, True])
def test_checkpoints_that_hold_something_else(name, marked, run):
    path = run / "checkpoint.pt"
    body = hostile.BODIES[name](path.read_bytes()[:-72])
    path.write_bytes(trailed(body) if marked else body)
    before = content(run)
    refused(lambda: checkpoint.load(path), CheckpointError, path)
    assert content(run) == before


@pytest.mark.parametrize("name", hostile.FILES)
def test_checkpoints_that_are_damaged(name, run):
    path = run / "checkpoint.pt"
    path.write_bytes(hostile.FILES[name](path.read_bytes()))
    before = content(run)
    refused(lambda: checkpoint.load(path), CheckpointError, path)
    refused(lambda: evaluate(run, ("clean",), device="cpu", progress=False), CheckpointError, path)
    assert content(run) == before


PLACES = {
    "nothing there": lambda path: None,
    "a pipe": lambda path: os.mkfifo(path),
    "a socket": lambda path: socket_at(path),
    "a link to nowhere": lambda path: path.symlink_to("nowhere"),
    "a link to itself": lambda path: path.symlink_to(path.name),
}


def socket_at(path: Path) -> None:
    place = os.getcwd()
    os.chdir(path.parent)  # the name of a socket may be no longer than 107 bytes
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(place)


@pytest.mark.parametrize("name", PLACES)
def test_checkpoints_that_are_no_files(name, tmp_path):
    PLACES[name](tmp_path / "checkpoint.pt")
    refused(
        lambda: checkpoint.load(tmp_path / "checkpoint.pt"),
        CheckpointError,
        tmp_path / "checkpoint.pt",
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", hostile.STATES)
def test_states_that_do_not_fit_the_run(name, run, capsys):
    path = run / "checkpoint.pt"
    checkpoint.save(path, hostile.STATES[name](checkpoint.load(path)))
    before = content(run)
    assert main(["evaluate", str(run), "--tests", "clean", "--device", "cpu"]) in (1, 2)
    said = capsys.readouterr().err
    assert said.startswith("catchup: ") and content(run) == before
    check_sentence(said.strip(), *([path] if str(path) in said else []))
    assert (name == "weights that are not finite") == (str(path) not in said)


def test_a_good_checkpoint_is_read(run):
    assert checkpoint.load(run / "checkpoint.pt")["epoch"] == 1


# Caches


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A folder of two classes, and what is read from it."""
    root = tmp_path_factory.mktemp("pictures")
    for split, count in (("train", 3), ("test", 2)):
        for label, name in enumerate(("cat", "dog")):
            for i in range(count):
                path = root / split / name / f"{i}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                hostile.picture(seed=100 * label + 10 * i + count, side=8).save(path)
    return root, data.load(f"folder:{root}", progress=False)


def cache_in(root: Path) -> Path:
    (found,) = root.glob(".catchup-cache-*.npz")
    return found


@pytest.mark.parametrize("name", [*hostile.CACHES, *PLACES])
def test_caches_of_decoded_images_are_made_again(name, pictures, tmp_path):
    root, good = (
        Path(shutil.copytree(pictures[0], tmp_path / "set", copy_function=shutil.copy2)),
        pictures[1],
    )
    cache = cache_in(root)
    pixels, skipped = decode._read_cache(cache, 10)
    cache.unlink()
    if name in PLACES:
        PLACES[name](cache)
    else:
        cache.write_bytes(hostile.CACHES[name](pixels, skipped))
    assert decode._read_cache(cache, 10) is None
    read = data.load(f"folder:{root}", progress=False)
    assert torch.equal(read.train.pixels, good.train.pixels) and torch.equal(
        read.test.labels, good.test.labels
    )
    assert not list(root.glob("*.tmp")) and not list(root.glob(".*.tmp"))
    if name != "a folder":
        assert decode._read_cache(cache_in(root), 10) is not None


@pytest.mark.parametrize("name", [*hostile.CACHES, *PLACES])
def test_caches_of_corrupted_images_are_made_again(name, pictures, tmp_path):
    images = pictures[1].test
    cache = corruption._Cache(tmp_path / "cache", images, seed=0)
    good = corruption._generate(images.pixels, "brightness", 1, 0, cache)
    (path,) = (tmp_path / "cache").iterdir()
    path.unlink()
    if name in PLACES:
        PLACES[name](path)
    else:
        path.write_bytes(hostile.CACHES[name](good.numpy(), np.zeros(0, dtype=np.int64)))
    assert cache.read("brightness", 1, tuple(good.shape)) is None
    if name != "a folder":
        assert torch.equal(corruption._generate(images.pixels, "brightness", 1, 0, cache), good)
        assert torch.equal(cache.read("brightness", 1, tuple(good.shape)), good)


# Random damage: a changed checkpoint is always refused, a changed cache is refused or gives the
# very same images

MUTATIONS = 600


def mutated(good: bytes, chance: np.random.Generator) -> bytes:
    """The bytes with a few of them flipped, set, cut off, cut out, put in, doubled or moved."""
    kind, here = int(chance.integers(7)), int(chance.integers(len(good)))
    some = int(chance.integers(1, 1 + min(40, len(good) - here)))
    if kind == 0:
        return good[:here] + bytes([good[here] ^ (1 << int(chance.integers(8)))]) + good[here + 1 :]
    if kind == 1:
        return good[:here] + chance.bytes(some) + good[here + some :]
    if kind == 2:
        return good[:here]
    if kind == 3:
        return good[:here] + good[here + some :]
    if kind == 4:
        return good[:here] + chance.bytes(some) + good[here:]
    if kind == 5:
        return good[: here + some] + good[here:]
    there = int(chance.integers(len(good)))
    block = good[there : there + some]
    return good[:here] + block + good[here + len(block) :]


@pytest.mark.slow
def test_600_mutations_of_a_checkpoint_are_refused(tmp_path):
    path, chance = tmp_path / "checkpoint.pt", np.random.default_rng(0)
    checkpoint.save(
        path, {"format": 1, "model": {"w": torch.arange(40.0)}, "rows": [{"loss": 0.5}]}
    )
    good, refusals = path.read_bytes(), 0
    for changed in (mutated(good, chance) for _ in range(MUTATIONS)):
        path.write_bytes(changed)
        if changed == good:
            continue
        with pytest.raises(CheckpointError):
            checkpoint.load(path)
        refusals += 1
    assert refusals > 0.9 * MUTATIONS


@pytest.mark.slow
def test_600_mutations_of_a_cache_are_made_again_or_change_nothing(tmp_path):
    path, chance = tmp_path / "cache.npz", np.random.default_rng(1)
    pixels, skipped = chance.integers(0, 256, (9, 3, 4, 4), dtype=np.uint8), np.array([4])
    np.savez(path, pixels=pixels, skipped=skipped)
    good, refusals = path.read_bytes(), 0
    targeted = [
        good[:at]
        + bytes([good[at] ^ bit])
        + good[at + 1 :]  # the headers, where damage is easily believed
        for start in [good.find(b"'shape'")]
        for at in range(start, start + 40)
        for bit in (1, 2, 4, 8)
    ]
    for changed in [*targeted, *(mutated(good, chance) for _ in range(MUTATIONS))]:
        path.write_bytes(changed)
        found = decode._read_cache(path, 10)
        refusals += found is None
        assert (
            found is None or np.array_equal(found[0], pixels) and np.array_equal(found[1], skipped)
        )
    assert refusals > 0.5 * MUTATIONS and decode._read_cache(path, 11) is None
    path.write_bytes(good)
    assert np.array_equal(decode._read_cache(path, 10)[0], pixels)


# Image files


def with_picture(root: Path, name: str, make) -> Path:
    """Class folders with one more image."""
    path = root / "train/cat" / f"z-{name}"
    path.write_bytes(make()) if not isinstance(make, type(os.mkfifo)) else make(path)
    return path


@pytest.mark.parametrize("name", hostile.UNREADABLE)
def test_image_files_that_cannot_be_read_are_named_or_skipped(name, pictures, tmp_path, recwarn):
    root = Path(shutil.copytree(pictures[0], tmp_path / "set", copy_function=shutil.copy2))
    path = root / "train/cat" / f"z-{name}"
    path.write_bytes(hostile.UNREADABLE[name]())
    before = content(root)
    said = refused(lambda: data.load(f"folder:{root}", progress=False), ValueError, path)
    assert "cannot be read as an image" in said and "Ghostscript" not in said
    assert content(root) == before
    with pytest.warns(UserWarning, match=f"skipped 1 unreadable images in .*z-{re.escape(name)}"):
        read = data.load(f"folder:{root}", skip_unreadable=True, progress=False)
    assert torch.equal(read.train.pixels, pictures[1].train.pixels)


@pytest.mark.parametrize("name", [name for name in PLACES if name != "nothing there"])
def test_image_files_that_are_no_files(name, pictures, tmp_path):
    root = Path(shutil.copytree(pictures[0], tmp_path / "set"))
    PLACES[name](root / "train/cat/z.png")
    refused(
        lambda: data.load(f"folder:{root}", progress=False), ValueError, root / "train/cat/z.png"
    )


@pytest.mark.parametrize("name", hostile.READABLE)
def test_image_files_of_unusual_kinds_are_read_as_torchvision_does(name, tmp_path, recwarn):
    from torchvision.datasets.folder import pil_loader

    path = tmp_path / name
    path.write_bytes(hostile.READABLE[name]())
    read, theirs = decode.read_image(path, None), np.asarray(pil_loader(str(path)))
    read = np.stack([read] * 3, axis=2) if read.ndim == 2 else read
    np.testing.assert_array_equal(read, theirs)
    assert read.dtype == np.uint8 and read.size


@pytest.mark.slow
def test_a_long_narrow_image_does_not_fill_the_memory(pictures, tmp_path):
    path = tmp_path / "narrow.png"
    path.write_bytes(hostile.png(1, 65000, bytes(2 * 65000), colour=0))
    assert decode.read_image(path, 32).shape == (32, 32)
    with pytest.raises(ValueError, match="1 x 65000 pixels, too long and narrow for 256 pixels"):
        decode.read_image(path, 256)


def test_file_names_that_are_no_text(pictures, tmp_path):
    root = Path(shutil.copytree(pictures[0], tmp_path / "set"))
    for name in (b"\xff\xfe.png", b"neu\nzeile.png", b"a b'\"$(x).png"):
        with open(os.fsencode(root / "train/cat") + b"/" + name, "wb") as file:
            file.write(hostile.encoded(hostile.picture(side=8)))
    assert len(data.load(f"folder:{root}", progress=False).train) == 9


# JSON


def json_readers(folder: Path) -> dict:
    """{name: (the file, what reads it, what is named)}."""
    run, rows, results = folder / "run", folder / "record.json", folder / "results/results.json"
    results.parent.mkdir()
    quiet, small = (
        {"progress": False},
        Settings(width=4, epochs=1, subset=5, method="baseline", device="cpu"),
    )
    bench = cost.CostSettings(
        width=4, batch=4, image_size=8, classes=3, rounds=2, steps=1, device="cpu"
    )
    return {
        "run.json": (run / "run.json", lambda: evaluate(run, ("clean",), device="cpu", **quiet)),
        "evaluation.json": (
            run / "evaluation.json",
            lambda: evaluate(run, ("calibration",), device="cpu", **quiet),
        ),
        "metrics.jsonl": (run / "metrics.jsonl", lambda: read_metrics(run)),
        "results.json": (results, lambda: report.make_report([results.parent])),
        "record": (rows, lambda: report.make_report([rows])),
        "evaluated run": (run / "evaluation.json", lambda: report.make_report([run])),
        "comparison": (
            results,
            lambda: compare.run_comparison(
                results.parent, methods=("baseline",), seeds=(0,), settings=small, **quiet
            ),
        ),
        "overhead": (rows, lambda: cost.measure_costs(("mixup",), bench, out=rows, **quiet)),
        "resumed": (run / "run.json", lambda: train(small, run, resume=True, **quiet)),
    }


READERS = (
    "run.json",
    "evaluation.json",
    "metrics.jsonl",
    "results.json",
    "record",
    "evaluated run",
    "comparison",
    "overhead",
    "resumed",
)
# What is read all the same: an empty file has no lines, and objects may hold anything where nothing
# is looked for.
ANYTHING = ("nothing in it", "rows of numbers", "wrong types")
HARMLESS = {
    ("nothing", "metrics.jsonl"),
    *((name, "metrics.jsonl") for name in ANYTHING),
    ("rows of numbers", "overhead"),
}


@pytest.mark.slow
@pytest.mark.parametrize("reader", READERS)
def test_json_of_every_kind_for_every_reader(reader, whole, tmp_path):
    folder = tmp_path / "all"
    shutil.copytree(whole, folder / "run")
    path, read = json_readers(folder)[reader]
    good = path.read_bytes() if path.exists() else None
    for name, text in hostile.JSON.items():
        path.write_bytes(text)
        before = content(folder)
        if (name, reader) in HARMLESS:
            continue
        try:
            refused(
                read,
                ValueError,
                (
                    path.parent
                    if path.name in ("results.json", "run.json", "evaluation.json")
                    else path
                ),
            )
        except BaseException as error:
            raise AssertionError(f"{name} for {reader}: {type(error).__name__}: {error}") from error
        assert content(folder) == before
    for name in (name for name, other in HARMLESS if other == reader and reader != "overhead"):
        if good is not None:
            path.write_bytes(hostile.JSON[name])
            read()


# Archives


@pytest.mark.parametrize("name", hostile_archives.ARCHIVES)
def test_a_bad_archive_is_named_and_leaves_nothing(name, tmp_path, monkeypatch):
    make, says = hostile_archives.ARCHIVES[name]
    monkeypatch.setattr(archives, "FLOOR_BYTES", 50_000)  # beside an archive of this size
    (tmp_path / "inner").mkdir()
    archive = make(tmp_path / "inner/archive.bin")
    before = content(tmp_path)
    assert re.search(
        says, refused(lambda: unpack(archive, tmp_path / "inner/out"), ValueError, archive)
    )
    assert content(tmp_path) == before


def big_archive(folder: Path) -> Archive:
    folder.mkdir(parents=True, exist_ok=True)
    file = hostile_archives.tar(
        folder / "set.tgz", *((f"set/{i}.bin", hostile.noise(2000, i)) for i in range(12))
    )
    return Archive(
        "http://127.0.0.1:1/set.tgz", hashlib.md5(file.read_bytes()).hexdigest(), "set.tgz", "set"
    )


def in_a_process(work) -> int:
    """The exit status of a forked process that does `work`."""
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException:
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1]


def killed_at(step: str, number: int = 1):
    """Makes the `number`-th call of a step of `obtain` the last thing that this process does."""
    owner, _, name = step.rpartition(":")
    owner = {"": archives, "tarfile": archives.tarfile.TarFile, "os": os}[owner]
    usual, calls = getattr(owner, name), []

    def deadly(*args, **kwargs):
        calls.append(1)
        if len(calls) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return usual(*args, **kwargs)

    setattr(owner, name, deadly)


KILLED = {
    "before it is read": ("md5_of", 1),
    "before its list is checked": ("_check", 1),
    "at the first file": ("tarfile:makefile", 1),
    "in the middle": ("tarfile:makefile", 7),
    "before it is put in its place": ("_put", 1),
}


@pytest.mark.parametrize("name", KILLED)
def test_killed_while_unpacking_nothing_is_taken_for_data(name, tmp_path):
    archive = big_archive(tmp_path / "store")

    def work():
        killed_at(*KILLED[name])
        obtain(archive, tmp_path / "store", progress=False)

    assert in_a_process(work) == signal.SIGKILL
    assert not (tmp_path / "store/set").exists() and os.listdir(tmp_path) == ["store"]
    left = [path for path in (tmp_path / "store").iterdir() if path.name != "set.tgz"]
    assert all(path.name.startswith(archives.WORK) for path in left)
    assert len(list(obtain(archive, tmp_path / "store", progress=False).iterdir())) == 12


def test_killed_while_fetching_it_is_fetched_again(tmp_path):
    archive = big_archive(tmp_path / "served")
    handler = type("Quiet", (SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    server = ThreadingHTTPServer(
        ("127.0.0.1", 0), partial(handler, directory=str(tmp_path / "served"))
    )
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    archive = Archive(
        f"http://127.0.0.1:{server.server_port}/set.tgz", archive.md5, "set.tgz", "set"
    )

    def work():
        killed_at("_copy")
        obtain(archive, tmp_path / "store", progress=False)

    try:
        assert in_a_process(work) == signal.SIGKILL and not (tmp_path / "store/set").exists()
        assert len(list(obtain(archive, tmp_path / "store", progress=False).iterdir())) == 12
    finally:
        server.shutdown()
        server.server_close()


def test_four_processes_at_once_all_find_the_whole_folder(tmp_path):
    archive, children = big_archive(tmp_path / "store"), []
    for _ in range(4):
        child = os.fork()
        if child == 0:
            try:
                os._exit(len(list(obtain(archive, tmp_path / "store", progress=False).iterdir())))
            except BaseException:
                os._exit(99)
        children.append(child)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [12] * 4
    assert sorted(path.name for path in (tmp_path / "store").iterdir()) == ["set", "set.tgz"]


def test_a_hostile_pickle_among_cifars_files_is_not_opened(tmp_path):
    import pickle

    for folder, files in (
        (
            "cifar-10-batches-py",
            ["batches.meta", *(f"data_batch_{i}" for i in range(1, 6)), "test_batch"],
        ),
        ("cifar-100-python", ["meta", "train", "test"]),
    ):
        (tmp_path / folder).mkdir()
        for name in files:
            (tmp_path / folder / name).write_bytes(pickle.dumps(hostile.Hostile()))
    for name, folder in (("cifar10", "cifar-10-batches-py"), ("cifar100", "cifar-100-python")):
        refused(
            lambda name=name: data.load(name, tmp_path, progress=False),
            ValueError,
            tmp_path / folder,
        )


# Lists and annotations


def tiny(root: Path) -> Path:
    """Tiny-ImageNet's layout, two classes of two images."""
    for wnid in ("n01", "n02"):
        for i in range(2):
            path = root / f"train/{wnid}/images/{wnid}_{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            hostile.picture(seed=i, side=8).save(path)
    (root / "val/images").mkdir(parents=True)
    hostile.picture(side=8).save(root / "val/images/val_0.png")
    (root / "wnids.txt").write_text("n01\nn02\n")
    (root / "val/val_annotations.txt").write_text("val_0.png\tn01\t0\t0\t3\t3\n")
    return root


def spoiling(file: str, text: bytes, layout: str = "tiny"):
    """(the layout, what to do to it, the file that has to be named)."""
    return layout, lambda root: (root / file).write_bytes(text), file


def matlab(file: str, **variables):
    """A MATLAB file with other variables."""

    def spoil(root):
        from scipy.io import savemat

        savemat(root / file, variables)

    return "cars", spoil, file


def cars_rows(**change) -> np.ndarray:
    row = {
        "bbox_x1": 1,
        "bbox_y1": 1,
        "bbox_x2": 9,
        "bbox_y2": 9,
        "class": 1,
        "fname": "00001.png",
        **change,
    }
    table = np.empty((1, 1), dtype=[(name, "O") for name in row])
    table[0, 0] = tuple(row.values())
    return table


TRAIN_MAT = "devkit/cars_train_annos.mat"
LISTS = {
    "classes up and out": spoiling("wnids.txt", b"n01\n../../n02\n"),
    "classes of the root": spoiling("wnids.txt", b"n01\n/etc\n"),
    "the folder itself for a class": spoiling("wnids.txt", b"n01\n.\n"),
    "binary classes": spoiling("wnids.txt", hostile.noise(300)),
    "binary annotations": spoiling("val/val_annotations.txt", hostile.noise(300)),
    "an annotation page": spoiling("val/val_annotations.txt", hostile.HTML),
    "an annotated image up and out": spoiling(
        "val/val_annotations.txt", b"../val_annotations.txt\tn01\t0\t0\t3\t3\n"
    ),
    "a box of 5000 digits": spoiling(
        "val/val_annotations.txt", b"val_0.png\tn01\t0\t0\t3\t" + b"9" * 5000 + b"\n"
    ),
    "a box larger than its image": spoiling(
        "val/val_annotations.txt", b"val_0.png\tn01\t0\t0\t3\t999999999999999\n"
    ),
    "a box of words": spoiling("val/val_annotations.txt", b"val_0.png\tn01\ta\tb\tc\td\n"),
    "a box with a sign": spoiling("val/val_annotations.txt", b"val_0.png\tn01\t-3\t0\t3\t3\n"),
    "CUB: binary": spoiling("images.txt", hostile.noise(300), "cub"),
    "CUB: a page": spoiling("classes.txt", hostile.HTML, "cub"),
    "CUB: an image up and out": spoiling("images.txt", b"3 ../../etc/passwd\n", "cub"),
    "CUB: a box without end": spoiling(
        "bounding_boxes.txt",
        b"".join(b"%d inf 1 1 1\n" % number for number in (3, 10, 17, 24, 31)),
        "cub",
    ),
    "Aircraft: binary": spoiling("data/images_box.txt", hostile.noise(300), "aircraft"),
    "Aircraft: a variant twice": spoiling(
        "data/variants.txt", b"A340\nA340\nBoeing 737-700\n", "aircraft"
    ),
    "Cars: a page": spoiling(TRAIN_MAT, hostile.HTML, "cars"),
    "Cars: a pickle": spoiling(TRAIN_MAT, hostile.pickle.dumps(hostile.Hostile), "cars"),
    "Cars: MATLAB 7.3": spoiling(
        TRAIN_MAT, b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM" + b"\x89HDF\r\n", "cars"
    ),
    "Cars: a number": matlab(TRAIN_MAT, annotations=3.0),
    "Cars: a text": matlab(TRAIN_MAT, annotations="none"),
    "Cars: words for a box": matlab(TRAIN_MAT, annotations=cars_rows(bbox_x1="left")),
    "Cars: several numbers for a corner": matlab(
        TRAIN_MAT, annotations=cars_rows(bbox_x1=np.arange(3.0))
    ),
    "Cars: a class that is no number": matlab(
        TRAIN_MAT, annotations=cars_rows(**{"class": np.nan})
    ),
    "Cars: half a class": matlab(TRAIN_MAT, annotations=cars_rows(**{"class": 1.5})),
    "Cars: an image up and out": matlab(
        TRAIN_MAT, annotations=cars_rows(fname="../cars_test/00001.png")
    ),
    "Cars: numbers for classes": matlab("devkit/cars_meta.mat", class_names=np.zeros(2)),
}


@pytest.mark.parametrize("name", LISTS)
def test_lists_of_published_sets(name, tmp_path):
    from test_finegrained import small_aircraft, small_cars, small_cub

    layout, spoil, file = LISTS[name]
    root = tmp_path / "set"
    made = {"tiny": tiny, "cub": small_cub, "cars": small_cars, "aircraft": small_aircraft}[layout](
        root
    )
    asked = "tiny-imagenet" if made == root else made[0]
    data.load(f"{asked}:{root}", image_size=16, progress=False)  # it is good
    for cache in root.glob(".catchup-cache-*"):
        cache.unlink()
    spoil(root)
    before = content(root)
    refused(
        lambda: data.load(f"{asked}:{root}", image_size=16, progress=False), ValueError, root / file
    )
    assert {name: held for name, held in content(root).items() if "cache" not in name} == before


# Command lines, settings and texts


@pytest.mark.slow
@pytest.mark.parametrize("name", hostile.COMMANDS)
def test_command_lines(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    argv, says = hostile.COMMANDS[name]
    if argv[0] == "train":
        given = [word for word in argv if word.startswith("--")]
        argv = [
            *argv,
            "--out",
            "run",
            *(
                word
                for option, value in zip(TINY[::2], TINY[1::2])
                if option not in given
                for word in (option, value)
            ),
        ]
    assert main(argv) in (1, 2)
    said = capsys.readouterr().err.rpartition("\r")[2].strip()  # behind a bar of progress
    assert said.startswith("catchup: ") and re.search(says, said), said
    assert len(said) <= 400 and "\n" not in said
    # it shows only when training begins
    assert name == "a border of terabytes" or list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", hostile.SETTINGS)
def test_settings(name, tmp_path):
    values, says = hostile.SETTINGS[name]

    def go():
        train(
            Settings(**{"width": 4, "epochs": 1, "subset": 4, "device": "cpu", **values}),
            tmp_path / "run",
            progress=False,
        )

    assert re.search(says, refused(go)) and len(refused(go)) <= 400
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", hostile.SPECS)
def test_texts_that_name_a_regulariser(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused(lambda: parse(hostile.SPECS[name]))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_what_tyro_refuses_ends_without_a_traceback(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        main(["train", "--epochs", "many", "--out", "run"])
    assert (
        stopped.value.code == 2
        and "Traceback" not in capsys.readouterr().err
        and list(tmp_path.iterdir()) == []
    )
