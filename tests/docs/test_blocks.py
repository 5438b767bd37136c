"""Every code block runs: Python is executed, `sh` is run, files are written, in a folder that all pages share.

A block that is not run says why behind its language (```sh needs=device), for a reason that the site knows and shows.
`exit=3` says which status the commands end with. A `text` block behind commands holds what they print, line by line.
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import sys
import traceback
from pathlib import Path
from types import ModuleType

import pytest

from fenced import DOCS, ROOT, Block, blocks_of, pages

sys.path.insert(0, str(DOCS / "_ext"))
from edgewright.asking.targetfile import read_profile
from edgewright.registry import Registry, Source
from edgewright.registry.kinds import KINDS
from edgewright.testing import Case, cases, open_rig
from fences import NEEDS

pytestmark = pytest.mark.slow

LANGUAGES = {"python", "sh", "toml", "text", "json", "yaml", ""}
TUTORIAL = DOCS / "tutorial.md"
RUNNABLE = [page for page in pages() if any(block.language in ("python", "sh", "toml") for block in blocks_of(page))]


class Workplace:
    """The folder in which a reader would follow the pages; a deploy that was done is not done again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.done: dict[str, str] = {}
        shutil.copytree(ROOT / "examples" / "digits", folder / "examples" / "digits")

    def follow(self, page: Path) -> None:
        """Run the blocks of a page, one after the other."""
        names: dict[str, object] = {"__name__": "__main__"}
        printed = ""
        for block in blocks_of(page):
            if block.said("needs"):
                continue
            if block.file:
                (self.folder / block.file).write_text(block.text, encoding="utf-8")
            if block.language == "python":
                exec(compile(block.text, str(block), "exec"), names)
            elif block.language == "sh":
                printed = self.run(block)
            elif block.language == "text" and printed:
                missing = [line for line in block.text.splitlines() if line.strip() not in printed]
                assert not missing, f"{block}: the commands before it do not print {missing}"

    def run(self, block: Block) -> str:
        """What the commands print. Raises: AssertionError when they end otherwise than the block says."""
        if block.text not in self.done:
            done = subprocess.run(
                ["bash", "-eu", "-o", "pipefail", "-c", block.text],
                cwd=self.folder,
                env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
                capture_output=True,
                text=True,
                timeout=600,
            )
            wanted = int(block.said("exit") or 0)
            assert done.returncode == wanted, f"{block} ends with {done.returncode}\n{done.stdout}{done.stderr}"
            self.done[block.text] = done.stdout + done.stderr
        return self.done[block.text]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reader")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.syspath_prepend(str(folder))
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        place = Workplace(folder)
        place.follow(TUTORIAL)
        yield place


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_blocks_say_what_they_are_and_why_they_are_not_run(page):
    for block in blocks_of(page):
        assert block.language in LANGUAGES, f"{block}: {block.language} is none of {sorted(LANGUAGES)}"
        keys = [word.partition("=")[0] for word in block.words]
        assert set(keys) <= {"needs", "exit"}, f"{block}: {block.words} is no needs=REASON or exit=STATUS"
        reason = block.said("needs")
        assert not reason or reason in NEEDS, f"{block}: {reason} is none of {sorted(NEEDS)}"


@pytest.mark.parametrize("page", RUNNABLE, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_blocks_of_a_page_run(page, workplace):
    if page != TUTORIAL:
        workplace.follow(page)


@pytest.mark.parametrize("page", RUNNABLE, ids=lambda page: str(page.relative_to(ROOT)))
def test_profiles_and_documents_on_pages_can_be_read(page, tmp_path):
    for block in blocks_of(page):
        if block.language == "json":
            json.loads(block.text)
        if block.language == "toml" and "[compute.float32]" in block.text:
            file = tmp_path / "profile.toml"
            file.write_text(block.text, encoding="utf-8")
            assert read_profile(file).name


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("```python\nassert 1 == 2\n```", "page.md:3"),
        ("```sh\nexit 4\n```", "page.md:3 ends with 4"),
        ("```sh exit=3\ntrue\n```", "page.md:3 ends with 0"),
        ("```sh\nfalse | true\n```", "page.md:3 ends with 1"),
        ("```sh\necho one\n```\n```text\ntwo\n```", "page.md:6: the commands before it do not print ['two']"),
    ],
)
def test_a_block_that_rots_is_found(text, found, tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"# A page\n\n{text}\n", encoding="utf-8")
    with pytest.raises(AssertionError) as caught:
        Workplace(tmp_path).follow(page)
    assert found in "".join(traceback.format_exception(caught.value))


# ------------------------------------------------------------------ the plugins of the pages on extending


def plugin(name: str) -> Source:
    return Source(name, "edgewright-acme", "0.1", lambda: importlib.import_module(name))


@pytest.fixture(scope="module")
def examples(workplace) -> tuple[ModuleType, ...]:
    """The modules that the pages on extending hold, each under the name that its block says."""
    kept = [block for page in sorted((DOCS / "extending").glob("*.md")) for block in blocks_of(page)]
    files = [block.file for block in kept if block.language == "python" and "EDGEWRIGHT_API" in block.text]
    for block in kept:
        if block.file in files or block.file.endswith(".toml"):
            (workplace.folder / block.file).write_text(block.text, encoding="utf-8")
    importlib.invalidate_caches()
    return tuple(importlib.import_module(file.removesuffix(".py")) for file in files)


def test_there_is_an_example_for_each_kind_and_the_registry_takes_it(examples):
    from edgewright.registry.discovery import installed

    registry = Registry([*installed(), *(plugin(module.__name__) for module in examples)])
    assert not registry.broken, registry.broken
    offered = {kind.noun for kind in KINDS for offer in registry.all(kind) if offer.plugin == "edgewright-acme"}
    assert offered == {kind.noun for kind in KINDS}


def test_the_examples_pass_the_conformance_kit(examples, tmp_path):
    from edgewright.registry.discovery import installed

    registry = Registry([*installed(), *(plugin(module.__name__) for module in examples)])
    run: list[Case] = []
    with open_rig(tmp_path, registry) as rig:
        for case in cases(registry, "edgewright-acme"):
            dear = "composes" in str(case)  # with every built-in method, in both orders
            if case.kind in KINDS and not dear and case.run(rig) is None:
                run.append(case)
    assert {case.kind.noun for case in run} == {kind.noun for kind in KINDS}
