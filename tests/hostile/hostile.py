"""A corpus of hostile and broken input: one entry for each kind, made in code, with a name.

Groups, by what reads them: checkpoints (bytes, then states with a right checksum), caches of
decoded and of corrupted images, image files, JSON texts, command lines; archives are in
`hostile_archives.py`. `test_hostile.py` runs them.
"""

import io
import json
import os
import pickle
import struct
import zipfile
import zlib

import numpy as np
import torch
from PIL import Image

CANARY = "CANARY"  # what hostile code would make, in the folder that this variable names


class Hostile:
    """Unpickled, it would make a folder: the canary."""

    def __reduce__(self):
        return os.mkdir, (os.environ[CANARY],)


HTML = b"<!DOCTYPE html>\n<html><body>please log in</body></html>\n"
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 12345\n"


def noise(count: int, seed: int = 0) -> bytes:
    return np.random.default_rng(seed).bytes(count)


def torch_bytes(value, **how) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, **how)
    return buffer.getvalue()


def zip_bytes(members: dict, compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def safetensors_bytes() -> bytes:
    head = json.dumps({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
    return struct.pack("<Q", len(head)) + head + bytes(8)


def compressed(content: bytes) -> bytes:
    """A zip archive with the same members, compressed: a way to put a bomb behind a right
    checksum.
    """
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return zip_bytes(
            {name: archive.read(name) for name in archive.namelist()}, zipfile.ZIP_DEFLATED
        )


def record(pickled: bytes) -> bytes:
    """What torch.save makes, around any pickle."""
    return zip_bytes({"archive/data.pkl": pickled, "archive/version": b"3\n"})


# Checkpoints: a function from the body of a good one to the bytes of the file's body. Each is tried
# as it is and, but for those that take the good file whole, behind a right mark and checksum.

BODIES = {
    "nothing": lambda good: b"",
    "random bytes": lambda good: noise(2000),
    "an HTML page": lambda good: HTML,
    "a Git LFS pointer": lambda good: LFS,
    "another zip": lambda good: zip_bytes({"a.txt": b"one"}),
    "a zip without members": lambda good: zip_bytes({}),
    "safetensors called .pt": lambda good: safetensors_bytes(),
    "a whole module": lambda good: torch_bytes({"model": torch.nn.Linear(2, 2)}),
    "a NumPy number": lambda good: torch_bytes({"model": {}, "loss": np.float64(0.5)}),
    "a NumPy array": lambda good: torch_bytes({"model": np.zeros(3)}),
    "a hostile pickle in the archive": lambda good: torch_bytes({"model": Hostile()}),
    "a bare hostile pickle": lambda good: pickle.dumps(Hostile()),
    "a pickle of another protocol": lambda good: torch_bytes(
        {"model": Hostile()}, pickle_protocol=4
    ),
    "torch's old format": lambda good: torch_bytes(
        {"model": {}}, _use_new_zipfile_serialization=False
    ),
    "a tensor alone": lambda good: torch_bytes(torch.zeros(3)),
    "a list": lambda good: torch_bytes([1, 2, 3]),
    "compressed members": compressed,
    "half the archive": lambda good: good[: len(good) // 2],
    "the archive behind noise": lambda good: noise(100) + good,
    "a record with a broken pickle": lambda good: record(b"\x80\x02}q\x00(X"),
    "a pickle that nests": lambda good: record(b"\x80\x02" + b"(" * 5000 + b"t" * 5000 + b"."),
}
# The bytes of a whole good file, changed.
FILES = {
    "cut at 10 %": lambda good: good[: len(good) // 10],
    "cut at 50 %": lambda good: good[: len(good) // 2],
    "cut at 99 %": lambda good: good[: len(good) * 99 // 100],
    "one bit flipped": lambda good: good[:500] + bytes([good[500] ^ 1]) + good[501:],
    "a byte behind the end": lambda good: good + b"\0",
    "two of them in one file": lambda good: good + good,
    "the mark of a newer package": lambda good: good[:-72] + b"catchup9" + good[-64:],
}
# States with a right checksum, from a good one.
STATES = {
    "a newer format": lambda good: {**good, "format": 99},
    "a format in words": lambda good: {**good, "format": "new"},
    "nothing in it": lambda good: {},
    "no weights": lambda good: {key: value for key, value in good.items() if key != "model"},
    "weights of another architecture": lambda good: {**good, "model": {"weight": torch.zeros(3)}},
    "weights of another number of classes": lambda good: {
        **good,
        "model": {
            key: value[:3] if key.startswith("fc.") else value
            for key, value in good["model"].items()
        },
    },
    "a number for the weights": lambda good: {**good, "model": 3},
    "texts for the weights": lambda good: {**good, "model": dict.fromkeys(good["model"], "w")},
    "tensors without data": lambda good: {
        **good,
        "model": {key: value.to("meta") for key, value in good["model"].items()},
    },
    "a text for the epochs": lambda good: {**good, "rows": "all"},
    "epochs without numbers": lambda good: {**good, "rows": [{}]},
    "weights that are not finite": lambda good: {
        **good,
        "model": {
            key: value * torch.nan if value.is_floating_point() else value
            for key, value in good["model"].items()
        },
    },
}

# Caches: a function from (pixels, skipped) to the bytes of the file.


def npz(**arrays) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def npy(shape: str, content: bytes, descr: str = "|u1", order: str = "False") -> bytes:
    """An array file with any words in its header."""
    head = f"{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {shape}, }}".encode()
    head += b" " * (-(len(head) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head + content


def npz_bytes(**members) -> bytes:
    return zip_bytes({f"{name}.npy": content for name, content in members.items()})


NONE = npy("(0,)", b"", "<i8")
CACHES = {
    "nothing": lambda pixels, skipped: b"",
    "random bytes": lambda pixels, skipped: noise(5000),
    "an HTML page": lambda pixels, skipped: HTML,
    "another zip": lambda pixels, skipped: zip_bytes({"a.txt": b"one"}),
    "cut in half": lambda pixels, skipped: npz(pixels=pixels, skipped=skipped)[:-1000],
    "an array of objects": lambda pixels, skipped: npz(
        pixels=np.array([Hostile()], dtype=object), skipped=skipped
    ),
    "a hostile pickle for the list": lambda pixels, skipped: npz_bytes(
        pixels=npy(str(pixels.shape), pixels.tobytes()), skipped=pickle.dumps(Hostile())
    ),
    "one array missing": lambda pixels, skipped: npz(pixels=pixels),
    "one array too many": lambda pixels, skipped: npz(pixels=pixels, skipped=skipped, more=skipped),
    "fewer images": lambda pixels, skipped: npz(pixels=pixels[:-1], skipped=skipped),
    "images of no size": lambda pixels, skipped: npz(pixels=pixels[..., :0], skipped=skipped),
    "images without channels": lambda pixels, skipped: npz(pixels=pixels[:, 0], skipped=skipped),
    "two channels": lambda pixels, skipped: npz(pixels=pixels[:, :2], skipped=skipped),
    "numbers with a point": lambda pixels, skipped: npz(
        pixels=pixels.astype(np.float32), skipped=skipped
    ),
    "numbers with a sign": lambda pixels, skipped: npz(
        pixels=pixels.view(np.int8), skipped=skipped
    ),
    "a list of skipped files that is none": lambda pixels, skipped: npz(
        pixels=pixels[:-1], skipped=np.array([np.nan])
    ),
    "a skipped file that is not there": lambda pixels, skipped: npz(
        pixels=pixels[:-1], skipped=np.array([99])
    ),
    "a file skipped twice": lambda pixels, skipped: npz(
        pixels=pixels[:-2], skipped=np.array([1, 1])
    ),
    "a header that reads less than there is": lambda pixels, skipped: npz_bytes(
        pixels=npy(str((*pixels.shape[:3], pixels.shape[3] // 2)), pixels.tobytes()), skipped=NONE
    ),
    "a header of a terabyte": lambda pixels, skipped: npz_bytes(
        pixels=npy(f"({1 << 40},)", b"0"), skipped=NONE
    ),
    "a header of nonsense": lambda pixels, skipped: npz_bytes(
        pixels=npy("(((", b"0"), skipped=NONE
    ),
    "a negative shape": lambda pixels, skipped: npz_bytes(
        pixels=npy("(-1, 3, 8, 8)", b"0" * 1920), skipped=NONE
    ),
    "a bomb": lambda pixels, skipped: zip_bytes(
        {
            "pixels.npy": npy(f"({len(pixels)}, 3, 900, 900)", bytes(2_430_000 * len(pixels))),
            "skipped.npy": NONE,
        },
        zipfile.ZIP_DEFLATED,
    ),
}

# Image files: those that are refused, and those that are read, with what they show.


def chunk(kind: bytes, content: bytes) -> bytes:
    return (
        struct.pack(">I", len(content))
        + kind
        + content
        + struct.pack(">I", zlib.crc32(kind + content))
    )


def png(width: int, height: int, rows: bytes, depth: int = 8, colour: int = 2) -> bytes:
    """A PNG file of any words: width and height are what the header says, rows what there is."""
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def encoded(image: Image.Image, kind: str = "PNG", **how) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **how)
    return buffer.getvalue()


def picture(channels: int | None = 3, seed: int = 3, side: int = 24) -> Image.Image:
    shape = (side, side) if channels is None else (side, side, channels)
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8))


def rotated() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6  # "turn me by 90 degrees"
    return encoded(picture(), "JPEG", exif=exif)


def palette(**how) -> bytes:
    return encoded(picture().quantize(16), "PNG", **how)


UNREADABLE = {
    "nothing.png": lambda: b"",
    "text.png": lambda: b"hello",
    "page.png": lambda: HTML,
    "pointer.png": lambda: LFS,
    "noise.jpg": lambda: noise(3000),
    "cut.jpg": lambda: encoded(picture(side=64), "JPEG")[:900],
    "cut.png": lambda: encoded(picture(side=64))[:2000],
    "damaged.png": lambda: encoded(picture())[:60] + b"XXXX" + encoded(picture())[64:],
    "header-only.png": lambda: encoded(picture())[:33],
    "absurd-header.png": lambda: png(2**31 - 1, 2**31 - 1, b"\0"),
    "large-header.png": lambda: png(60000, 60000, b"\0"),
    "bomb.png": lambda: png(10000, 10000, bytes(1251 * 10000), depth=1, colour=0),
    "no-size.png": lambda: png(0, 0, b""),
    "sixteen-bits.png": lambda: encoded(Image.fromarray(np.full((8, 8), 1000, dtype=np.uint16))),
    "colour-sixteen-bits.png": lambda: png(
        2, 2, b"\0" + noise(12) + b"\0" + noise(12, 1), depth=16
    ),
    "floats.tif": lambda: encoded(Image.fromarray(np.ones((8, 8), dtype=np.float32)), "TIFF"),
    "postscript.png": lambda: encoded(picture(), "EPS"),  # Pillow would start Ghostscript for it
    "drawing.png": lambda: b"<svg xmlns='http://www.w3.org/2000/svg' width='8' height='8'/>",
    "array.png": lambda: npy("(2, 2)", b"0000"),
    "archive.png": lambda: zip_bytes({"a.png": encoded(picture())}),
}
READABLE = {
    "cmyk.jpg": lambda: encoded(picture(4).convert("CMYK"), "JPEG"),
    "palette.png": palette,
    "palette-transparent.png": lambda: palette(transparency=3),
    "alpha.png": lambda: encoded(picture(4)),
    "grey-alpha.png": lambda: encoded(picture(2)),
    "one-bit.png": lambda: encoded(picture(None).convert("1")),
    "animation.gif": lambda: encoded(
        picture(), "GIF", save_all=True, append_images=[picture(seed=4)]
    ),
    "pages.tif": lambda: encoded(picture(), "TIFF", save_all=True, append_images=[picture(seed=4)]),
    "rotated.jpg": rotated,
    "progressive.jpg": lambda: encoded(picture(), "JPEG", progressive=True),
    "png-called.jpg": lambda: encoded(picture()),
    "junk-behind.png": lambda: encoded(picture()) + noise(500),
}

# JSON texts, for run.json, evaluation.json, results.json, metrics.jsonl and records.

JSON = {
    "nothing": b"",
    "no JSON": b"dear diary",
    "an HTML page": HTML,
    "binary": noise(500),
    "cut": b'{"settings": {"data": "dig',
    "a list": b"[1, 2]",
    "a number": b"3",
    "null": b"null",
    "a text": b'"settings"',
    "another encoding": '{"settings": {}}'.encode("utf-16"),
    "brackets without end": b"[" * 200_000,
    "objects without end": b'{"a":' * 100_000,
    "a number of 5000 digits": b'{"settings": ' + b"9" * 5000 + b"}",
    "nothing in it": b"{}",
    "rows of numbers": b'{"rows": [1, 2], "settings": 3, "bench": {}}',
    "wrong types": (
        b'{"rows": [{"method": 3}], "settings": {"data": 3, "model": [], "method": null}}'
    ),
}


# Command lines: (arguments, what is said); few, for each costs a second of parsing. What they would
# otherwise name is in SETTINGS and SPECS: the same refusals, asked for by the functions under the
# commands.

DEEP = "(" * 3000 + ")" * 3000
COMMANDS = {
    "a model of terabytes": (["train", "--width", "99999999999"], "not enough memory"),
    "a border of terabytes": (["train", "--pad", "999999999"], "not enough memory"),
    "a method of 100000 letters": (
        ["train", "--method", "x" * 100_000],
        "unknown method 'xxx.*100002 characters",
    ),
    "a path for a recipe": (
        ["train", "--recipe", "../../evil.toml"],
        r"unknown recipe '\.\./\.\./evil.toml'",
    ),
    "brackets 3000 deep": (
        ["train", "--regularisers", f"cutout:size={DEEP}"],
        "a regulariser is written name or",
    ),
    "a device for a run": (["evaluate", "/dev/null"], "is not the folder of a run"),
    "a device for a record": (["report", "/dev/null"], "holds no evaluated run"),
}
SETTINGS = {
    "a seed of 20 digits": ({"seed": 10**20}, r"seed must be less than 2\*\*31"),
    "a batch of 20 digits": ({"batch_size": 10**20}, r"batch_size must be less than 2\*\*31"),
    "no epochs": ({"epochs": 0}, "epochs must be at least 1"),
    "a rate that is no number": ({"lr": float("nan")}, "lr must be a positive number, got nan"),
    "a rate without end": ({"lr": float("inf")}, "lr must be a positive number, got inf"),
    "a momentum that is no number": ({"momentum": float("nan")}, r"momentum in \[0, 1\)"),
    "a decay that is no number": ({"weight_decay": float("nan")}, "weight_decay must be ≥ 0"),
    "a warm-up that is no number": ({"warmup_epochs": float("nan")}, "warmup_epochs must lie in"),
    "an image without pixels": (
        {"image_size": 0},
        "image_size must be a whole number of at least 1",
    ),
    "a window larger than the image": ({"window": 10**20}, "does not fit into images of 8 x 8"),
    "a border below zero": ({"pad": -1}, "pad must be a whole number of at least 0"),
    "a share that is no number": ({"subset": float("nan")}, r"a share must lie in \(0, 1\]"),
    "a crop that is no number": (
        {"resized_scale": (float("nan"), 1.0)},
        "the scale of a resized crop is two shares",
    ),
    "a layer of 20 digits": ({"method_settings": {"layers": (10**20,)}}, "unknown layer 1000"),
    "a setting that is none": ({"method_settings": {"aplha": 1.0}}, "Did you mean 'alpha'"),
    "data of 100000 letters": ({"data": "x" * 100_000}, "unknown data set 'xxx.*100002 characters"),
    "a path for a data set": (
        {"data": "../../etc/passwd"},
        r"unknown data set '\.\./\.\./etc/passwd'",
    ),
    "a folder that is no word": ({"data": "folder:"}, "needs a path after the colon"),
    "a bias that is no number": ({"data": "shapes:nan"}, r"takes a bias in \[0, 1\]"),
    "a path for a method": (
        {"method": "../../etc/passwd"},
        r"unknown method '\.\./\.\./etc/passwd'",
    ),
    "a path for a model": ({"model": "torchvision.../../evil", "width": None}, "unknown model"),
}
SPECS = {
    "nothing": "",
    "a colon": ":",
    "a path": "../../evil",
    "two colons": "cutout::",
    "200000 signs": "cutout:size=" + "-" * 200_000 + "1",
    "brackets 3000 deep": f"cutout:size={DEEP}",
    "an open bracket": "cutout:size=(1",
    "an open quote": "cutout:size='1",
    "code": "cutout:size=__import__('os').mkdir('x')",
    "a table": "cutout:size={[]:1}",
    "a word twice": "cutout:size=1,size=2",
    "a byte of zero": "cutout:size=\0",
    "no text": None,
    "a number": 3,
    "a number without end": "cutout:prob=1e999",
    "5000 digits": "cutout:size=" + "9" * 5000,
}
