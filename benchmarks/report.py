"""The section on speed in docs/cost.md, written from the records of `python -m
benchmarks.throughput` and of the scripts that try to break runs.

    python -m benchmarks.report            prints it
    python -m benchmarks.report docs/cost.md  puts it in its place there, between the two marks

Every number in it is read from `data/results`; a test holds the page against it.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from catchup.utils.files import read_json, write_atomically
from catchup.utils.text import as_markdown

BEGIN, END = "<!-- benchmarks.report: begin -->", "<!-- benchmarks.report: end -->"
RECORDS = Path(__file__).parents[1] / "data" / "results"
BENCHES = ("bench-16.json", "bench-64.json")
EARLIER = ("bench-16-avx2.json", "bench-64-avx2.json")  # of a processor without bfloat16
SPOKEN = {
    "dataloader": "plain PyTorch loop with a DataLoader",
    "ordinary": "ours, ordinary memory format and float32",
    "returned": "ours, as it is now",
    "ours": "ours of then, which kept freed memory",
    "catchup": "the same with Catch-up Mix",
    "limit": "bare forward and backward",
}


def section(folder: Path = RECORDS) -> str:
    """The text between the marks, Markdown.

    Args:
        folder: with the records; those that are missing are left out.
    Raises:
        ValueError: if there is no record of `python -m benchmarks.throughput` at all, or one is
            damaged.
    """
    benches = [read_json(folder / name) for name in BENCHES if (folder / name).is_file()]
    if not benches:
        raise ValueError(
            f"{folder} holds none of {', '.join(BENCHES)}: run"
            " `python -m benchmarks.throughput --out` first"
        )
    earlier = [read_json(folder / name) for name in EARLIER if (folder / name).is_file()]
    told = [
        _throughput(benches),
        *(_without(earlier) if earlier else ()),
        _pieces(benches),
        *(_parts(benches[0])),
    ]
    others = {
        "corruptions.json": _corruptions,
        "kills.json": _kills,
        "endurance.json": _endurance,
        "mutations.json": _mutations,
    }
    told += [
        text(read_json(folder / name)) for name, text in others.items() if (folder / name).is_file()
    ]
    return "\n\n".join(told)


def _throughput(benches: Sequence[Mapping]) -> str:
    """The throughput of all records, a column each."""
    hardware, load = benches[0]["hardware"], benches[0]["load"]
    side = load["image_size"]
    where = f"{hardware['processor']}, {hardware['threads']} threads, {benches[0]['computed_in']}"
    head = (
        f"`python -m benchmarks.throughput`: {load['model']}, {side}×{side} images,"
        f" {load['classes']} classes, {where}; images per second, and in brackets an"
        " epoch's time as a multiple of ours (median, quartiles), all in turn:"
    )
    loads = [bench["load"] for bench in benches]
    table = [["", *(f"width {load['width']}, batch {load['batch']}" for load in loads)]]
    for name, spoken in SPOKEN.items():
        rows = [bench["throughput"]["variants"].get(name) for bench in benches]
        if not all(rows):  # "returned" is of older records alone
            continue
        form = "{images_per_s:.0f} ({ratio:.2f}, {low:.2f}–{high:.2f})"
        table.append([spoken, *(form.format_map(row) for row in rows)])
    return f"{head}\n\n{as_markdown(table)}\n\n{' '.join(_aims(bench) for bench in benches)}"


def _without(benches: Sequence[Mapping]) -> list[str]:
    """The goals on a processor without bfloat16, where the records have one."""
    return [
        f"On a processor without bfloat16 (AVX2, {benches[0]['computed_in']}; before freed memory"
        " was kept, and with the plain loop in the same process):"
        f" {' '.join(_aims(bench) for bench in benches)}"
    ]


def _aims(bench: Mapping) -> str:
    """Which of its goals a record reaches, in words."""
    goals, said = bench["throughput"]["goals"], []
    for name, goal in goals.items():
        sign, limit = ("≥", goal["at_least"]) if "at_least" in goal else ("≤", goal["at_most"])
        met = goal["reached"] >= limit if sign == "≥" else goal["reached"] <= limit
        said.append(
            f"{name} {goal['reached']:.3f} (goal {sign} {limit:g}, {'met' if met else 'missed'})"
        )
    rates = bench["throughput"]["tflops_per_s"]
    return (
        f"Width {bench['load']['width']}: {'; '.join(said)}; {1e3 * rates['ours']:.1f} GFLOP/s of"
        f" the {1e3 * rates['matrix product']:.1f} that a large matrix product reaches."
    )


def _pieces(benches: Sequence[Mapping]) -> str:
    """Where the time of Catch-up Mix goes."""
    said = []
    for bench in benches:
        share = bench["mix"]["share_percent"]
        said.append(
            f"width {bench['load']['width']}: norms {share['norms']:.2f} %, ranking"
            f" {share['ranking']:.2f} %, gather and select {share['select']:.2f} %, their backward"
            f" {share['backward']:.2f} %, together {share['all']:.2f} %"
        )
    return (
        "What Catch-up Mix adds to a plain step, mean over the blocks it may draw:"
        f" {'; '.join(said)}."
    )


def _parts(bench: Mapping) -> list[str]:
    """Growth, streaming, precision of one record, where it has them."""
    said = []
    if "scaling" in bench:
        rows = [
            [
                f"{row['cost']} over {row['over']}",
                f"{row['sizes'][0]} … {row['sizes'][-1]}",
                *(
                    "" if row[key] is None else f"{row[key]:.2f} ± {row[f'{key}_se']:.2f}"
                    for key in ("exponent", "memory_exponent")
                ),
            ]
            for row in bench["scaling"]
        ]
        said += [
            (
                "How cost grows (1 is linear; slope and standard error of a line through the"
                " logarithms):"
            ),
            as_markdown([["", "from … to", "exponent of time", "of peak tensor memory"], *rows]),
        ]
    if "streaming" in bench:
        rows = [
            [
                row["loader"],
                str(row["images"]),
                f"{row['decoded_mib']:.0f}",
                f"{row['peak_mib'] - row['base_mib']:.0f}",
                f"{row['images_per_s']:.0f}",
            ]
            for row in bench["streaming"]
        ]
        said += [
            (
                "Images of 224×224 out of JPEG files, one pass without training,"
                f" {bench['streaming'][0]['workers']} workers: what they would take in memory, and"
                " what the process and its workers took beyond their start:"
            ),
            as_markdown([["loader", "images", "MiB decoded", "MiB taken", "images/s"], *rows]),
        ]
    if "precision" in bench:
        found = bench["precision"]
        said.append(
            f"Error with bf16 minus error with fp32, {len(found['fp32'])} seeds on digits: "
            f"{found['difference']:+.2f} points [{found['low']:+.2f}, {found['high']:+.2f}]."
        )
    return said


def _corruptions(found: Mapping) -> str:
    """How long the corrupted images take."""
    (theirs, ours), (others, own) = (
        found["total_ms"][which] for which in ("all 19", "all but frost")
    )
    return (
        f"`python -m benchmarks.corruptions`: the 19 corruptions of CIFAR-C take {ours:.2f} ms per"
        " image (one of each, one thread, processor time), the library imagecorruptions with the"
        f" same numbers {theirs:.1f}: {theirs / ours:.1f} times as long, {others / own:.1f} without"
        " frost, for which the library reads a photograph per image. For 10 000 images and five"
        f" severities that is {50 * ours:.0f} s against {50 * theirs:.0f}."
    )


def _kills(found: Mapping) -> str:
    """What became of runs that were killed."""
    total, writes = found["total"], found["writes"]
    of = "; ".join(
        ", ".join(sorted({row[key] for row in found["cases"]})) for key in ("case", "loader")
    )
    return (
        f"`python tests/bulk/kill_and_resume.py`: {total['trials']} runs ({of}) killed with SIGKILL"
        f" {total['kills']} times at random moments, {total['in_write']} of them while a file was"
        f" being written, and taken up again: {total['identical']} of {total['trials']} end with"
        f" the weights of a run left alone, {total['unloadable']} checkpoints could not be loaded,"
        f" {total['lost']} epochs lost. Of {total['controls']} runs whose generators were forgotten"
        f" on purpose {total['controls_different']} end with others. A process that does nothing"
        f" but save, killed {writes['kills']} times, left {writes['unloadable']} unreadable files."
    )


def _endurance(found: Mapping) -> str:
    """What became of runs that were interrupted, stopped, repeated, or many."""
    told, said = found.get, []
    if row := told("interrupts"):
        said.append(
            f"{row['interrupts']} interrupts of {row['trials']} runs at random moments:"
            f" {row['identical']} end with the weights of a run left alone, {row['hooks_left']}"
            " hooks stay behind."
        )
    if row := told("terminations"):
        said.append(
            f"SIGTERM in {row['trials']} runs: {row['code_143']} save and leave with 143, after"
            f" {1e3 * row['stop_s']:.0f} ms (median; most {1e3 * row['most_s']:.0f}; a step takes"
            f" {1e3 * row['step_s']:.0f} and a save {1e3 * row['save_s']:.0f}), {row['identical']}"
            " then end with the weights of a run left alone."
        )
    if row := told("repeats"):
        same = sum(different == 1 for different in row["methods"].values())
        read = sum(different == 1 for different in row["workers"].values())
        said.append(
            f"The same run {row['times']} times: bit-equal for {same} of {len(row['methods'])}"
            f" methods; resident, and streamed by 0, 1 and 2 processes: for {read} of"
            f" {len(row['workers'])}."
        )
    if rows := told("watching"):
        each = ", ".join(f"{row['percent']:.2f} % at width {row['width']}" for row in rows)
        said.append(f"Looking for numbers that are none costs {each} of a training.")
    if row := told("outputs"):
        said.append(
            f"A notebook that prints into an `Output`, {row['times']} times beside other work:"
            f" {row['slow']} slow."
        )
    if row := told("moves"):
        said.append(
            f"{row['times']} moves of a slider: {row['grown_mib']:+.1f} MiB, {row['kept']} figures"
            " kept."
        )
    if row := told("soak"):
        said.append(
            f"{row['runs']} small runs one after the other in {row['seconds']:.0f} s: memory "
            f"{row['growth_percent']:+.1f} % from the first half to the second, open files "
            f"{row['open_files_early']} and {row['open_files_late']}."
        )
    return "`python tests/bulk/endurance.py`: " + " ".join(said)


def _mutations(found: Mapping) -> str:
    rows = found["mutations"]
    return (
        f"`python tests/bulk/mutations.py` breaks {len(rows)} places of the package, one by one:"
        f" the tests notice {sum(row['noticed'] for row in rows)}."
    )


def place(text: str, content: str) -> str:
    """`text` with `content` between the marks.

    Raises:
        ValueError: unless both marks occur once, in order.
    """
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(END) < text.index(BEGIN):
        raise ValueError(f"the text needs the marks {BEGIN} and {END}, once each and in this order")
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n{content}\n{END}{rest.split(END)[1]}"


def main(arguments: Sequence[str]) -> None:
    """Prints the section, or writes it into the files named."""
    content = section()
    if not arguments:
        print(content)
    for name in arguments:
        write_atomically(Path(name), place(Path(name).read_text(), content).encode())


if __name__ == "__main__":
    main(sys.argv[1:])
