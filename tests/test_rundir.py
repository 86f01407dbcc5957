"""Run directories and files: nothing mixed, nothing half-written, nothing executed by loading."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch

from fustal_core.config import SettingsError, make_settings, read_settings
from fustal_core.files import (
    atomic_path,
    load_checkpoint,
    save_checkpoint,
    write_json,
    write_parquet,
    write_text,
)
from fustal_core.rundir import (
    Product,
    RunDirectoryError,
    claim_run_dir,
    code_hash,
    default_run_dir,
    git_revision,
    hash_of,
    is_whole,
    project_root,
    resolve_data,
    resolve_overrides,
    with_recorded_extent,
    write_provenance,
)
from fustal_core.stages import open_study

SETTINGS = make_settings(profile="smoke")
OTHER = make_settings(profile="smoke", overrides={"generation.iterations": 7})


# --- claiming -------------------------------------------------------------------------------------


def test_a_new_directory_is_claimed_and_claimed_again(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "one"
    claim_run_dir(folder, SETTINGS)
    assert read_settings(folder / "config.json") == SETTINGS
    before = (folder / "config.json").stat().st_mtime_ns
    claim_run_dir(folder, SETTINGS)
    assert (folder / "config.json").stat().st_mtime_ns == before
    assert [path.name for path in folder.iterdir()] == ["config.json"]


def test_other_settings_are_refused_and_named(tmp_path: Path) -> None:
    claim_run_dir(tmp_path, SETTINGS)
    with pytest.raises(RunDirectoryError) as error:
        claim_run_dir(tmp_path, OTHER)
    assert "generation.iterations: 20 -> 7" in str(error.value)
    assert str(tmp_path) in str(error.value)
    assert "--force" in str(error.value)
    assert isinstance(error.value, SettingsError)  # exit status 2
    assert read_settings(tmp_path / "config.json") == SETTINGS


def test_force_takes_over(tmp_path: Path) -> None:
    claim_run_dir(tmp_path, SETTINGS)
    claim_run_dir(tmp_path, OTHER, force=True)
    assert read_settings(tmp_path / "config.json") == OTHER


def test_opening_keeps_how_much_a_directory_tries(tmp_path: Path) -> None:
    """Unless something else is asked for; and what was recorded is what the study does."""
    whole = {"ablation.groups": "all", "ablation.seeds": "0:5", "analysis.difficulty_seeds": "3"}
    grid = make_settings(profile="smoke", overrides=whole)
    claim_run_dir(tmp_path, grid)
    before = (tmp_path / "config.json").stat()
    opened = open_study(profile="smoke", run_dir=tmp_path)
    assert opened.settings == grid
    after = (tmp_path / "config.json").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    fewer = open_study(profile="smoke", run_dir=tmp_path, overrides={"ablation.seeds": "4"})
    expected = make_settings(profile="smoke", overrides=whole | {"ablation.seeds": "4"})
    assert fewer.settings == expected == read_settings(tmp_path / "config.json")
    taken_over = open_study(profile="smoke", run_dir=tmp_path, force=True)
    assert taken_over.settings == SETTINGS == read_settings(tmp_path / "config.json")


def test_how_much_is_tried_is_all_that_is_taken_from_a_directory(tmp_path: Path) -> None:
    assert with_recorded_extent(tmp_path, SETTINGS, ()) == SETTINGS
    claim_run_dir(tmp_path, make_settings(profile="quick", overrides={"ablation.seeds": "7"}))
    found = with_recorded_extent(tmp_path, OTHER, ("ablation.resamples",))
    assert found.ablation.seeds == (7,)
    assert found.ablation.resamples == OTHER.ablation.resamples != 400
    assert found.analysis == make_settings(profile="quick").analysis
    same = {"ablation": OTHER.ablation, "analysis": OTHER.analysis}
    assert found.model_copy(update=same) == OTHER
    with pytest.raises(RunDirectoryError, match="other settings"):
        open_study(profile="smoke", run_dir=tmp_path)
    (tmp_path / "config.json").write_text("{")
    assert with_recorded_extent(tmp_path, SETTINGS, ()) == SETTINGS


def test_a_configuration_of_another_version_needs_force(tmp_path: Path) -> None:
    write_json(tmp_path / "config.json", SETTINGS.model_dump() | {"gone since": 1})
    with pytest.raises(RunDirectoryError, match="not a configuration of this version"):
        claim_run_dir(tmp_path, SETTINGS)
    claim_run_dir(tmp_path, SETTINGS, force=True)
    assert read_settings(tmp_path / "config.json") == SETTINGS


@pytest.mark.parametrize("text", ["{", "[]", '{"mine": 1}', "[" * 100_000], ids=len)
def test_what_is_no_run_directory_is_never_taken_over(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(text)
    for force in (False, True):
        with pytest.raises(
            RunDirectoryError, match=r"a run directory at all\? If config\.json may go"
        ):
            claim_run_dir(tmp_path, SETTINGS, force=force)
    assert path.read_text() == text


def test_a_run_directory_that_is_a_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("")
    with pytest.raises(OSError, match=r"config\.json"):
        claim_run_dir(path, SETTINGS)
    assert path.read_text() == ""


def test_default_run_dir_names_data_profile_and_seed(tmp_path: Path) -> None:
    assert default_run_dir(SETTINGS) == project_root() / "runs" / "simulated-smoke-seed0"
    real = make_settings(str(tmp_path / "salads"), "quick", 3)
    assert default_run_dir(real).name == "salads-quick-seed3"
    assert (project_root() / "pyproject.toml").is_file()


def test_provenance(tmp_path: Path) -> None:
    write_provenance(tmp_path, SETTINGS, "abc", "cpu")
    content = json.loads((tmp_path / "provenance.json").read_text())
    assert content["seed"] == 0
    assert content["data_fingerprint"] == "abc"
    assert content["versions"]["torch"].startswith(torch.__version__.partition("+")[0])
    assert content["git_revision"] == git_revision()


# --- products -------------------------------------------------------------------------------------


def test_a_product_is_made_when_finished_under_its_key(tmp_path: Path) -> None:
    product = Product(tmp_path / "cola", "key")
    assert not product.is_made
    write_text(product.folder / "weights", "...")
    assert not product.is_made
    product.finish()
    assert product.is_made
    assert not Product(product.folder, "other key").is_made


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"key": 1}'])
def test_a_damaged_product_is_not_made(tmp_path: Path, text: str) -> None:
    (tmp_path / "made.json").write_text(text)
    assert not Product(tmp_path, "key").is_made


@pytest.mark.parametrize("keep", [True, False])
def test_finishing_removes_the_checkpoint_unless_it_is_needed(tmp_path: Path, keep: bool) -> None:
    product = Product(tmp_path, "key")
    save_checkpoint(product.checkpoint, product.key, {"done": 1})
    product.finish(keep_checkpoint=keep)
    assert product.checkpoint.exists() == keep
    assert product.is_made


def test_a_product_says_what_made_it(tmp_path: Path) -> None:
    product = Product(tmp_path / "cola", "key")
    write_text(product.folder / "weights", "...")
    product.finish(device="cpu")
    made = json.loads((product.folder / "made.json").read_text())["made_with"]
    assert made["git_revision"] == (git_revision() or "none")
    assert made["device"].startswith("cpu (")
    assert made["torch"] == torch.__version__


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "[" * 100_000, '{"files": {}}', '{"key": "other", "files": {"w": ""}}'],
    ids=len,
)
def test_damage_is_found_without_knowing_the_key(tmp_path: Path, text: str) -> None:
    product, made = Product(tmp_path / "cola", "key"), tmp_path / "cola" / "made.json"
    assert not is_whole(made)
    write_text(product.folder / "w", "...")
    product.finish()
    assert is_whole(made)
    write_text(product.folder / "more", "...")
    assert is_whole(made)
    write_text(product.folder / "w", "..")
    assert not is_whole(made)
    write_text(product.folder / "w", "...")
    assert is_whole(made)
    made.write_text(text)
    assert not is_whole(made)


def test_hashes() -> None:
    assert hash_of({"a": 1, "b": [2]}, "x") == hash_of({"b": [2], "a": 1}, "x")
    assert hash_of({"a": 1}) != hash_of({"a": 2})
    assert len(hash_of(1)) == 16
    assert code_hash(["files", "config"]) == code_hash(["config", "files"])
    assert code_hash(["files"]) != code_hash(["config"])


# --- files ----------------------------------------------------------------------------------------


def test_atomic_path_keeps_links_and_what_is_no_file(tmp_path: Path) -> None:
    (link := tmp_path / "link").symlink_to(tmp_path / "file")
    write_text(link, "new")
    assert link.is_symlink()
    assert (tmp_path / "file").read_text() == "new"
    os.mkfifo(pipe := tmp_path / "pipe")
    with pytest.raises(OSError, match="not a file that can be replaced"):
        write_text(pipe, "new")
    assert pipe.is_fifo()


def test_atomic_path_replaces_the_file_when_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file.txt"
    write_text(path, "old")
    with atomic_path(path) as temporary:
        temporary.write_text("new")
        assert temporary.parent == path.parent
        assert temporary.suffix == ".txt"
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert os.listdir(path.parent) == ["file.txt"]


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_who_may_read_a_file_is_up_to_the_umask(tmp_path: Path, umask: int, mode: int) -> None:
    before = os.umask(umask)
    try:
        write_text(tmp_path / "file.txt", "text")
    finally:
        os.umask(before)
    assert (tmp_path / "file.txt").stat().st_mode & 0o777 == mode


@pytest.mark.parametrize("existing", ["old", None])
def test_a_failing_block_leaves_nothing_behind(tmp_path: Path, existing: str | None) -> None:
    path = tmp_path / "file.txt"
    if existing is not None:
        path.write_text(existing)

    def fail() -> None:
        with atomic_path(path) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert os.listdir(tmp_path) == (["file.txt"] if existing else [])
    assert existing is None or path.read_text() == existing


def test_what_cannot_be_written_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert json.loads(path.read_text()) == {"a": 1}
    assert os.listdir(tmp_path) == ["file.json"]


def test_parquet_round_trip(tmp_path: Path) -> None:
    frame = pd.DataFrame({"video": ["a", "b"], "score": [0.1, 0.2]}, index=[4, 7])
    write_parquet(tmp_path / "t.parquet", frame)
    read = pd.read_parquet(tmp_path / "t.parquet")
    pd.testing.assert_frame_equal(read, frame.reset_index(drop=True), check_dtype=False)


def test_checkpoints_come_back_under_their_key_only(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    assert load_checkpoint(None, "key") is None
    assert load_checkpoint(path, "key") is None
    save_checkpoint(path, "key", {"weights": torch.arange(3), "scores": [{"a": 0.5}], "best": None})
    state = load_checkpoint(path, "key")
    assert torch.equal(state["weights"], torch.arange(3))
    assert state["scores"] == [{"a": 0.5}]
    assert load_checkpoint(path, "other") is None


class Bomb:
    """Unpickling this makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.path),)


def test_loading_a_checkpoint_runs_no_code(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path, trace = tmp_path / "checkpoint.pt", tmp_path / "trace"
    torch.save({"key": "key", "state": Bomb(trace)}, path)
    assert load_checkpoint(path, "key") is None
    assert not trace.exists()
    assert "checkpoint.pt: not a readable checkpoint" in capsys.readouterr().err


@pytest.mark.parametrize("damage", ["truncated", "a byte changed"])
def test_a_damaged_checkpoint_counts_as_none(
    tmp_path: Path, capsys: pytest.CaptureFixture, damage: str
) -> None:
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, "key", {"weights": torch.arange(1000)})
    content = bytearray(path.read_bytes())
    if damage == "truncated":
        content = content[: len(content) // 2]
    else:
        content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert load_checkpoint(path, "key") is None
    assert "going on without it" in capsys.readouterr().err


def test_taking_over_removes_the_other_settings_results_and_keeps_products(tmp_path: Path) -> None:
    claim_run_dir(tmp_path, SETTINGS)
    table = tmp_path / "05_analysis" / "main_results.csv"
    notebook = tmp_path / "05_analysis" / "05_analysis.ipynb"
    weights = tmp_path / "01_generation" / "cola" / "weights.safetensors"
    for path in (table, notebook, weights):
        write_text(path, "x")
    Product(table.parent, "key").finish()
    mine = (table.with_name("notes.txt"), tmp_path / "06_photos" / "made.json")
    for path in mine:
        write_text(path, "{}")
    claim_run_dir(tmp_path, SETTINGS, force=True)
    assert table.exists()
    claim_run_dir(tmp_path, OTHER, force=True)
    assert not table.exists()
    assert not notebook.exists()
    assert weights.exists()
    assert all(path.exists() for path in mine)


def test_a_product_begun_again_is_not_made(tmp_path: Path) -> None:
    product = Product(tmp_path / "p", "a")
    write_text(product.folder / "weights", "a")
    product.finish()
    write_text(product.folder / ".weights.partial-of-a-kill", "b")
    (product.folder / ".ipynb_checkpoints").mkdir()
    product.begin()
    assert not product.is_made
    left = sorted(path.name for path in product.folder.iterdir())
    assert left == [".ipynb_checkpoints", "weights"]


def test_what_was_made_from_something_else_is_no_part_of_the_product(tmp_path: Path) -> None:
    earlier = Product(tmp_path / "p", "a")
    write_text(earlier.folder / "figure_of_the_past.png", "a")
    earlier.finish()
    write_text(earlier.folder / "notes.txt", "the user's")
    product = Product(earlier.folder, "b")
    product.begin()
    write_text(product.folder / "figure.png", "b")
    product.finish()
    assert product.is_made
    left = sorted(path.name for path in product.folder.iterdir())
    assert left == ["figure.png", "made.json", "notes.txt"]


def test_overrides_have_a_default_directory_of_their_own() -> None:
    assert default_run_dir(SETTINGS) != default_run_dir(OTHER)
    assert default_run_dir(OTHER).name.startswith(default_run_dir(SETTINGS).name)


def test_data_is_found_from_here_and_from_the_checkout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path)
    assert resolve_data("simulated") == "simulated"
    assert resolve_data("mine") == str((tmp_path / "mine").resolve())
    assert resolve_data("notebooks") == str(project_root() / "notebooks")
    assert resolve_data("nowhere") == str((tmp_path / "nowhere").resolve())


def test_a_list_of_what_is_ambiguous_is_opened_from_where_one_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And is found by workers, wherever they were started."""
    monkeypatch.chdir(tmp_path)
    write_text(Path("list.txt"), "sim_test_0000 1 2\n")
    asked = {"evaluation.ambiguous": "list.txt"}
    study = open_study(profile="smoke", run_dir=tmp_path / "run", overrides=asked)
    variants = [make("v", overrides=asked) for make in (study.variant, study.other)]
    for one in (study, *variants):
        assert one.settings.evaluation.ambiguous == str(tmp_path / "list.txt")
    assert asked == {"evaluation.ambiguous": "list.txt"}


@pytest.mark.parametrize("overrides", [{}, {"evaluation.ambiguous": ""}, {"hr_pro.points": 3}])
def test_settings_that_name_no_file_stay_as_they_are(overrides: dict[str, object]) -> None:
    assert resolve_overrides(overrides) == overrides


def test_a_list_that_is_no_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="ambiguous"):
        open_study(run_dir=tmp_path / "run", overrides={"evaluation.ambiguous": 3})


# --- the process ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("own", "expected"), [(None, "1"), ("0", "0")])
def test_large_tensors_are_asked_from_huge_pages(own: str | None, expected: str) -> None:
    """Unless the user says otherwise."""
    name = "THP_MEM_ALLOC_ENABLE"
    environment = {key: value for key, value in os.environ.items() if key != name}
    said = subprocess.run(
        [sys.executable, "-c", f"import os, fustal_core; print(os.environ[{name!r}])"],
        env=environment | ({} if own is None else {name: own}),
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout.strip() == expected
