"""Two notebooks in JupyterLab: an explorer and a mask inspector, then the panels; driven by keys
and mouse.

And the inspector as a page without a kernel.
"""

import json
import statistics
import time

import pytest

from .cells import EXPLORER, EXPLORERS, INSPECTOR, PANELS, SPIRAL, WAITING

CANVAS = ".catchup-inspector canvas"


@pytest.fixture(scope="module")
def page(run_notebook):
    page = run_notebook("widgets.ipynb", SPIRAL, EXPLORER, INSPECTOR)
    page.wait_for_selector(".jp-OutputArea img[src^=blob]", timeout=60_000)
    page.wait_for_selector(f"{CANVAS}[data-drawn]", timeout=60_000, state="attached")
    return page


def noted(path):
    """A reader of what the kernel last noted, which may lag behind what the browser already
    shows.
    """
    return lambda: json.loads(path.read_text())


@pytest.fixture(scope="module")
def kernel(lab):
    return noted(lab[1] / "explorer.json")


@pytest.fixture(scope="module")
def inspected(lab):
    return noted(lab[1] / "inspector.json")


def until(condition, seconds=10):
    """Waits for `condition`; fails if it does not come true in time."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come true in time"
        time.sleep(0.01)


def slider(page):
    return page.locator("input[name=turns]")


def put(page, value):
    """Moves the slider as a mouse would: at once, with one event."""
    slider(page).evaluate(
        "(node, to) => { node.value = to; node.dispatchEvent(new Event('input')); }", value
    )


def settled(page, kernel, turns):
    until(lambda: kernel()["turns"] == turns)
    says(page, ".catchup-controls", f"{turns:.2f} turns")


def says(page, widget, words):
    """Waits until the widget's live line says so."""
    page.wait_for_function(
        "([widget, words]) => document.querySelector(`${widget} .catchup-description`)"
        ".textContent.includes(words)",
        arg=[widget, words],
    )


def test_the_controls_have_names_and_readable_values(page):
    put(page, 1)
    assert slider(page).get_attribute("aria-valuetext") == "1.00 turns"
    assert page.locator(".catchup-controls output").inner_text() == "1.00 turns"
    for name, role in (("Turns", "slider"), ("Colour", "combobox"), ("Draw again", "button")):
        assert page.get_by_role(role, name=name).count() == 1
    assert page.locator(".catchup-range label").inner_text() == "Turns"
    assert (
        page.locator(".catchup-controls .catchup-description").get_attribute("aria-live")
        == "polite"
    )
    assert page.get_by_role("button", name="Stop").is_disabled()


def test_a_hundred_presses_all_take_effect_and_the_last_picture_belongs_to_the_last_value(
    page, kernel, lab
):
    put(page, 1)
    settled(page, kernel, 1)
    slider(page).focus()
    for _ in range(100):
        page.keyboard.press("ArrowRight")
    settled(page, kernel, 6)
    assert float(slider(page).input_value()) == 6
    shown = page_picture(page)
    put(page, 2)
    settled(page, kernel, 2)
    other = page_picture(page)
    put(page, 6)  # drawn alone, without any rush
    settled(page, kernel, 6)
    assert page_picture(page) == shown != other


def page_picture(page):
    """The pixels on the screen, as text."""
    return page.evaluate("""async () => {
        const image = document.querySelector('.jp-OutputArea img');
        await image.decode();
        const canvas = new OffscreenCanvas(image.naturalWidth, image.naturalHeight);
        const pen = canvas.getContext('2d');
        pen.drawImage(image, 0, 0);
        const bytes = pen.getImageData(0, 0, canvas.width, canvas.height).data;
        const hash = new Uint8Array(await crypto.subtle.digest('SHA-256', bytes));
        return [canvas.width, canvas.height, ...hash].join(' ');
    }""")


def test_a_key_press_gives_a_new_picture_soon(page, kernel, record_property):
    put(page, 3)
    settled(page, kernel, 3)
    slider(page).focus()
    page.evaluate("""() => {
        const image = document.querySelector('.jp-OutputArea img');
        const input = document.querySelector('input[name=turns]');
        input.addEventListener('input', () => { window.pressed = performance.now(); });
        new MutationObserver(() => image.decode()
            .then(() => window.waits.push(performance.now() - window.pressed)))
            .observe(image, { attributeFilter: ['src'] });
    }""")
    medians = []
    # other work on the machine is no fault of ours
    while not medians or min(medians) > 150 and len(medians) < 3:
        waits = presses(page)
        medians.append(statistics.median(waits))
        print(
            f"explorer: key to picture, median {medians[-1]:.0f} ms, {min(waits):.0f} to"
            f" {max(waits):.0f} ms"
        )
    record_property("explorer_latency_ms", min(medians))
    assert min(medians) <= 3 * 150  # the aim is 150 ms; shared cores get three times that


def presses(page, count=10):
    """The waits in ms for the pictures of so many presses, one after the other."""
    page.evaluate("() => { window.waits = []; }")
    for press in range(1, count + 1):
        page.keyboard.press("ArrowRight")
        page.wait_for_function("count => window.waits.length >= count", arg=press, timeout=5000)
    return page.evaluate("() => window.waits")


def test_an_error_is_shown_within_a_second_and_the_picture_stays(page, kernel):
    put(page, 8.95)
    settled(page, kernel, 8.95)
    before = page_picture(page)
    slider(page).focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_selector(
        ".catchup-controls .catchup-error[role=alert]:not([hidden])", timeout=1000
    )
    assert (
        "ValueError: no spiral has 9.0 turns"
        in page.locator(".catchup-controls .catchup-error").inner_text()
    )
    until(lambda: kernel()["error"] == "ValueError: no spiral has 9.0 turns")
    assert page_picture(page) == before
    page.keyboard.press("ArrowLeft")
    page.wait_for_selector(".catchup-controls .catchup-error", state="hidden", timeout=2000)


def test_every_button_press_arrives(page, kernel):
    for _ in range(20):
        page.get_by_role("button", name="Draw again").click(no_wait_after=True)
    says(page, ".catchup-controls", "again 20 times")
    until(lambda: "more" in kernel())
    assert kernel()["more"] == {"Draw again": 20, "Stop": 0}


def test_a_choice_by_keyboard(page, kernel):
    before = page_picture(page)
    page.locator("select[name=colour]").focus()
    page.keyboard.press("ArrowDown")
    until(lambda: page_picture(page) != before)
    assert kernel()["colour"] == "#E69F00"


def test_the_picture_has_the_description_as_its_alternative_text(page, kernel):
    put(page, 1.5)
    settled(page, kernel, 1.5)
    found = """() => [...document.querySelectorAll('.widget-vbox')]
        .filter(box => box.querySelector('img')).map(box => [box.querySelector('img').alt,
            box.querySelector('.catchup-description').textContent])"""
    until(lambda: all(alt and alt == text for alt, text in page.evaluate(found)))
    assert page.evaluate(found), "no picture was found"


def test_play_moves_to_the_end_and_stops(page, kernel):
    put(page, 9.75)
    settled(page, kernel, 9.75)
    player = page.get_by_role("button", name="Wind it up")
    player.focus()
    page.keyboard.press("Space")
    assert player.get_attribute("data-playing") == "true" and "Pause" in player.inner_text()
    settled(page, kernel, 10)
    until(lambda: player.get_attribute("data-playing") == "false")
    page.keyboard.press("Space")  # from the end it starts anew, and pauses
    until(lambda: kernel()["turns"] < 1)
    page.keyboard.press("Space")
    assert player.get_attribute("data-playing") == "false"
    until(lambda: kernel()["turns"] == float(slider(page).input_value()))
    paused = kernel()["turns"]
    time.sleep(0.3)
    assert kernel()["turns"] == float(slider(page).input_value()) == paused < 5


def lam(page):
    return page.locator("input[name=lam]")


def canvas(page):
    """The canvas as it is now, as text."""
    return page.locator(CANVAS).evaluate("node => node.toDataURL()")


def spoken(page):
    return page.locator(CANVAS).get_attribute("aria-label")


def in_kernel(page, code):
    page.evaluate(
        "code => window.jupyterapp.shell.currentWidget.sessionContext.session.kernel"
        ".requestExecute({ code }).done.then(() => null)",
        code,
    )


def test_the_inspector_says_in_words_what_it_shows(page):
    assert page.locator(CANVAS).get_attribute("role") == "img"
    for part in (
        "λ = 0.50, epoch 9, 1:",
        "source (ape) keeps the 50 of 100",
        "partner (bee)",
        "0.50 “ape” and 0.50 “bee”",
        "source alone",
        "mixed",
    ):
        assert part in spoken(page)
    for name, role in (
        ("Pair", "combobox"),
        ("Checkpoint", "combobox"),
        ("Layer", "combobox"),
        ("λ", "slider"),
    ):
        assert page.get_by_role(role, name=name).count() == 1
    assert lam(page).get_attribute("aria-valuetext") == "λ 0.50, keeps 50 of 100 channels"
    assert (
        page.locator(".catchup-inspector .catchup-description").get_attribute("aria-live")
        == "polite"
    )
    says(page, ".catchup-inspector", spoken(page))


def test_a_hundred_presses_on_lambda_redraw_at_once_and_reach_the_kernel(
    page, inspected, record_property
):
    lam(page).focus()
    page.keyboard.press("Home")
    before = canvas(page)
    page.evaluate("""() => {
        window.draws = [];
        const input = document.querySelector('input[name=lam]');
        input.addEventListener('keydown', () => { window.pressed = performance.now(); });
        new MutationObserver(() => window.draws.push(performance.now() - window.pressed))
            .observe(document.querySelector('.catchup-inspector canvas'),
                { attributeFilter: ['data-drawn'] });
    }""")
    for _ in range(100):
        page.keyboard.press("ArrowRight")
    until(lambda: inspected()["lam"] == 1)
    assert lam(page).input_value() == "1" and inspected()["kept"] == 100 and canvas(page) != before
    draws = page.evaluate("() => window.draws")
    median = statistics.median(draws)
    print(
        f"inspector: key to canvas, median {median:.1f} ms, {min(draws):.1f} to {max(draws):.0f} ms"
    )
    record_property("inspector_latency_ms", median)
    # the aim is 30 ms; shared cores get three times that
    assert len(draws) >= 95 and median <= 3 * 30
    says(page, ".catchup-inspector", "λ = 1.00")


def test_layer_pair_and_checkpoint_by_keyboard(page, inspected):
    for name, key, value, words in (
        ("layer", "ArrowDown", "3", "of 12 channels"),
        ("pair", "ArrowDown", 1, "(cow)"),
        ("checkpoint", "ArrowUp", "epoch 0", "epoch 0"),
    ):
        before = canvas(page)
        page.locator(f"select[name={name}]").focus()
        page.keyboard.press(key)
        until(lambda name=name, value=value: inspected()[name] == value)
        assert canvas(page) != before and words in spoken(page)


def test_the_kernel_moves_the_inspector_too(page):
    before = canvas(page)
    in_kernel(page, "inspector.lam = 0.29; inspector.layer = '1'; inspector.pair = 0")
    page.wait_for_function("() => document.querySelector('input[name=lam]').value === '0.29'")
    until(lambda: "the 28 of 100" in spoken(page))  # 0.29 · 100 is 28.999…, for Python and here
    assert canvas(page) != before and page.locator("select[name=layer]").input_value() == "1"


def test_running_the_cells_twice_works_and_nothing_left_this_machine(page, kernel, inspected):
    page.evaluate("() => { window.jupyterapp.commands.execute('notebook:run-all-cells'); }")
    until(lambda: kernel()["turns"] == 1 and inspected()["lam"] == 0.5, seconds=20)
    page.wait_for_function(
        "() => document.querySelector('input[name=turns]')?.value === '1'"
        "&& document.querySelector('input[name=lam]')?.value === '0.5'"
    )
    put(page, 2)
    settled(page, kernel, 2)
    lam(page).focus()
    page.keyboard.press("ArrowRight")
    until(lambda: inspected()["lam"] == 0.51)
    assert (
        page.locator(".catchup-controls").count() == page.locator(".catchup-inspector").count() == 1
    )
    assert page.locator("[data-mime-type='application/vnd.jupyter.stderr']").count() == 0
    # no host: data and blob addresses
    assert page.hosts <= {"127.0.0.1", "", None} and not page.errors


def test_the_page_works_without_kernel_and_network(page, lab, open_page):
    alone = open_page(offline=True)
    alone.goto(f"file://{lab[1] / 'inspector.html'}")
    alone.wait_for_selector(f"{CANVAS}[data-drawn]")
    before = canvas(alone)
    lam(alone).focus()
    alone.keyboard.press("ArrowRight")
    assert canvas(alone) != before and "λ = 0.51" in spoken(alone)
    alone.select_option("select[name=layer]", "3")
    assert "of 12 channels" in spoken(alone)
    assert alone.hosts <= {"", None} and not alone.errors


def test_the_cut_is_pythons_for_every_lambda(page, lab, open_page):
    alone = open_page(offline=True)
    alone.goto(f"file://{lab[1] / 'inspector.html'}")
    alone.wait_for_selector(f"{CANVAS}[data-drawn]")
    kept = alone.evaluate("""() => {
        const input = document.querySelector('input[name=lam]');
        return Array.from({ length: 101 }, (_, step) => {
            input.value = step / 100;
            input.dispatchEvent(new Event('input'));
            return Number(input.getAttribute('aria-valuetext').match(/keeps (\\d+) of 100/)[1]);
        });
    }""")
    assert kept == [int(step / 100 * 100) for step in range(101)] != list(range(101))


def test_an_error_of_the_drawing_is_shown_in_the_widget(page, lab, open_page):
    text = (lab[1] / "inspector.html").read_text()
    (lab[1] / "broken.html").write_text(text.replace('"rfi/1/0"', '"lost"'))
    alone = open_page(offline=True)
    alone.goto(f"file://{lab[1] / 'broken.html'}")
    alarm = alone.locator(".catchup-error[role=alert]")
    alarm.wait_for(state="visible")
    assert alarm.inner_text().startswith("The inspector cannot draw this:")
    alone.select_option("select[name=checkpoint]", "epoch 0")  # what is whole is still drawn
    alarm.wait_for(state="hidden")


# -- the panels, in a notebook of their own --------------------------------------------------------


@pytest.fixture(scope="module")
def panels(run_notebook):
    page = run_notebook("panels.ipynb", PANELS, WAITING, EXPLORERS)
    for name in ("run", "browser", "explorer", "playground"):
        page.wait_for_selector(f".the-{name} img[src^=blob]", timeout=60_000, state="attached")
    return page


@pytest.fixture(scope="module")
def trained(lab):
    return noted(lab[1] / "run.json")


@pytest.fixture(scope="module")
def held(lab):
    return noted(lab[1] / "panels.json")


def press_button(page, name):
    """Clicks a button of the live panel with the mouse; the time of the click."""
    button = page.locator(".the-run").get_by_role("button", name=name)
    page.wait_for_function(
        "name => !document.querySelector(`.the-run button[value=${name}]`).disabled", arg=name
    )
    button.scroll_into_view_if_needed()
    clicked = time.time()
    button.click(no_wait_after=True)
    return clicked


def stopped_after(page, trained):
    """Clicks Stop. Seconds until the run had stopped, and until the panel said so."""
    clicked = press_button(page, "stop")
    says(page, ".the-run", "Stopped; start goes on from here.")
    seen = time.time()
    until(lambda: trained()["state"] == "stopped")
    return trained()["at"] - clicked, seen - clicked


def enabled(page):
    """The buttons of the live panel that can be pressed, once the browser knows."""
    return page.locator(".the-run button:enabled").all_inner_texts()


def test_the_live_panel_follows_the_run_and_stop_ends_it_soon(panels, trained, record_property):
    assert enabled(panels) == ["start"]
    panels.evaluate("""() => {
        window.pictures = 0;
        new MutationObserver(() => { window.pictures += 1; })
            .observe(document.querySelector('.the-run img'), { attributeFilter: ['src'] });
    }""")
    press_button(panels, "start")
    panels.wait_for_function("() => window.pictures >= 4", timeout=20_000)
    assert (
        trained()["state"] == "running"
        and trained()["step"] > 0
        and enabled(panels) == ["pause", "stop"]
    )
    waits = []
    # other work on the machine is no fault of ours
    while not waits or min(waits) > 1 and len(waits) < 3:
        if waits:
            press_button(panels, "start")
        ended, said = stopped_after(panels, trained)
        waits.append(max(ended, said))
        print(
            f"live panel: from the click on Stop to the end of the run {ended:.2f} s, to the words"
            f" {said:.2f} s"
        )
    record_property("stop_s", min(waits))
    assert min(waits) <= 3 * 1  # the aim is one second; shared cores get three times that
    step = trained()["step"]
    time.sleep(0.3)
    assert trained()["step"] == step and enabled(panels) == ["start"]


def test_a_stopped_run_goes_on_and_can_be_paused(panels, trained):
    step = trained()["step"]
    press_button(panels, "start")
    until(lambda: trained()["step"] > step)
    press_button(panels, "pause")
    says(panels, ".the-run", "Paused.")
    until(lambda: trained()["state"] == "paused")
    step = trained()["step"]
    press_button(panels, "start")
    until(lambda: trained()["step"] > step)
    assert trained()["state"] == "running"


def test_an_interrupt_while_a_cell_waits_for_the_run_keeps_it(panels, trained):
    waiting = panels.locator(".jp-CodeCell").nth(1)
    waiting.locator(".cm-content").click()
    panels.keyboard.press("Control+Enter")
    panels.wait_for_function(
        "() => document.querySelectorAll('.jp-CodeCell')[1].innerText.includes('[*]')"
    )
    step = trained()["step"]
    until(lambda: trained()["step"] > step)  # the kernel is free for the panel meanwhile
    panels.locator("[data-command='notebook:interrupt-kernel']").first.click()
    says(panels, ".the-run", "Stopped; start goes on from here.")
    panels.wait_for_function(
        "() => document.querySelectorAll('.jp-CodeCell')[1].innerText"
        ".includes('after the wait: stopped True')"
    )
    step = trained()["step"]
    press_button(panels, "start")
    until(lambda: trained()["step"] > step)
    stopped_after(panels, trained)
    assert panels.locator(".the-run .catchup-error:visible").count() == 0


def new_picture(page, name, act):
    """Does something and waits for the picture of that panel to change."""
    image = page.locator(f".the-{name} img")
    before = image.get_attribute("src")
    act()
    until(lambda: image.get_attribute("src") != before)


def test_the_filter_browser_by_keyboard(panels, held):
    panels.locator(".the-browser input[name=filter]").focus()
    for _ in range(3):
        new_picture(panels, "browser", lambda: panels.keyboard.press("ArrowRight"))
    says(panels, ".the-browser", "Filter 3 of ")
    panels.locator(".the-browser select[name=block]").focus()
    new_picture(panels, "browser", lambda: panels.keyboard.press("Home"))
    says(panels, ".the-browser", "Filter 3 of 4 in stem")
    until(lambda: held()["browser"]["filter"] == 3 and held()["browser"]["block"] == "stem")
    assert not held()["browser"]["error"]


def test_a_hundred_presses_on_the_playgrounds_lambda(panels, held):
    panels.locator(".the-playground input[name=lam]").focus()
    panels.keyboard.press("Home")
    says(panels, ".the-playground", "λ 0.00: 0 of 64")
    for _ in range(100):
        panels.keyboard.press("ArrowRight")
    says(panels, ".the-playground", "λ 1.00: 64 of 64")
    until(lambda: held()["playground"]["lam"] == 1)


def test_play_goes_through_the_epochs(panels, held):
    panels.locator(".the-explorer").get_by_role("button", name="Play").click()
    says(panels, ".the-explorer", "at epoch 1")
    says(panels, ".the-explorer", "at epoch 4")
    player = panels.locator(".the-explorer button[name=play]")
    until(
        lambda: player.get_attribute("data-playing") == "false" and held()["explorer"]["epoch"] == 3
    )
    assert panels.locator(".the-explorer output").nth(1).inner_text() == "4", (
        "the epoch, and not its place"
    )


def test_the_panels_run_twice_and_nothing_left_this_machine(panels, trained, held):
    panels.evaluate("() => { window.jupyterapp.commands.execute('notebook:run-all-cells'); }")
    until(lambda: trained()["state"] == "ready" and held()["playground"]["lam"] == 0.5, seconds=20)
    says(panels, ".the-run", "Not started.")
    press_button(panels, "start")
    until(lambda: trained()["step"] > 0)
    stopped_after(panels, trained)
    assert panels.locator(".the-run").count() == panels.locator(".the-playground").count() == 1
    assert panels.locator("[data-mime-type='application/vnd.jupyter.stderr']").count() == 0
    assert panels.hosts <= {"127.0.0.1", "", None} and not panels.errors
