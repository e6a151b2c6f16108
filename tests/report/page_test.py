"""Opens report pages in headless Chromium: page_test.py WRITE_SAMPLE_PAGES.

Every sample page must stand alone (offline, one request, no script), show its
tables, and fit into a wide and a narrow window. Exit 77 where no Chromium is.
"""

import json
import pathlib
import shutil
import subprocess
import sys
import tempfile

SAMPLES = ["dense", "large", "ranks4", "experts", "failed", "datafree", "clean", "hostile"]
MAX_BYTES = 2 << 20
ROWS_OF_WORST = 20


def open_page(browser, path, width, scheme, javascript):
    context = browser.new_context(
        viewport={"width": width, "height": 900},
        color_scheme=scheme,
        offline=True,
        java_script_enabled=javascript,
    )
    page = context.new_page()
    seen = {"errors": [], "requests": []}
    page.on("console", lambda m: seen["errors"].append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda error: seen["errors"].append(str(error)))
    page.on("dialog", lambda dialog: seen["errors"].append("dialog " + dialog.message))
    page.on("request", lambda request: seen["requests"].append(request.url))
    page.goto(path.as_uri())
    assert not seen["errors"], (path.name, seen["errors"])
    assert seen["requests"] == [path.as_uri()], (path.name, seen["requests"])
    return context, page


def check_without_script(browser, path):
    context, page = open_page(browser, path, 1280, "light", javascript=False)
    assert page.locator("h1").count() == 1
    assert page.locator("#verdict").is_visible()
    assert page.locator(".tile").count() == 6
    for table in ["#worst", "#linears", "#methods", "#steps", "#layers"]:
        assert page.locator(f"{table} tbody tr").count() > 0, (path.name, table)
    assert page.locator("#worst tbody tr").count() <= ROWS_OF_WORST
    assert page.locator("#worst").is_visible() and page.locator("#steps").is_visible()
    page.locator("summary").first.click()
    assert page.locator("#linears").is_visible(), "tables unfold without script"
    assert page.locator("script:not([type='application/json'])").count() == 0
    context.close()


def check_with_script(browser, path):
    """Nothing is wider than the window; the island is the report as JSON."""
    context, page = open_page(browser, path, 1280, "light", javascript=True)
    for scheme, width in [("light", 1280), ("light", 390), ("dark", 1280), ("dark", 320)]:
        page.emulate_media(color_scheme=scheme)
        page.set_viewport_size({"width": width, "height": 900})
        inner, scroll = page.evaluate("[innerWidth, document.scrollingElement.scrollWidth]")
        assert inner == width and scroll <= width, (path.name, width, scroll)
    report = json.loads(page.locator("#llmc-report").text_content())
    assert report["schema_version"] == 1
    assert report["model"]["name"][:20] == page.locator("h1").text_content()[:20], path.name
    context.close()


def check_print(browser, path):
    context, page = open_page(browser, path, 1280, "dark", javascript=True)
    page.emulate_media(media="print")
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert background == "rgb(255, 255, 255)", (path.name, background)
    context.close()


def contrast(page, selector):
    """WCAG 2 contrast of an element's text against the nearest opaque background."""
    return page.evaluate(
        """selector => {
        const channel = v => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
        const light = css => { const [r, g, b] = css.match(/[\\d.]+/g).map(Number);
          return 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b); };
        const element = document.querySelector(selector);
        let below = element;
        while (getComputedStyle(below).backgroundColor === 'rgba(0, 0, 0, 0)') below = below.parentElement;
        const a = light(getComputedStyle(element).color);
        const b = light(getComputedStyle(below).backgroundColor);
        return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05); }""",
        selector,
    )


def check_contrast(browser, path):
    for scheme in ["light", "dark"]:
        context, page = open_page(browser, path, 1280, scheme, javascript=True)
        for selector in ["h1", ".sub", "#verdict b", ".tile p", "nav a", "th", "td", ".ys span",
                         "summary", ".where", "dt", "pre", ".m .pre", "footer"]:
            ratio = contrast(page, selector)
            assert ratio >= 4.5, (scheme, selector, ratio)
        context.close()


def main():
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        return 77
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        return 77
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as p:
        subprocess.run([sys.argv[1], folder, *SAMPLES], check=True)
        browser = p.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for name in SAMPLES:
            path = pathlib.Path(folder) / f"{name}.html"
            assert path.stat().st_size <= MAX_BYTES, (name, path.stat().st_size)
            check_without_script(browser, path)
            check_with_script(browser, path)
        check_print(browser, pathlib.Path(folder) / "ranks4.html")
        check_contrast(browser, pathlib.Path(folder) / "ranks4.html")
        browser.close()
    print(f"{len(SAMPLES)} pages")
    return 0


if __name__ == "__main__":
    sys.exit(main())
