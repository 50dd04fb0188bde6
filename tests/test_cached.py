"""Saved statistics are taken; those that do not fit are made again."""

import json
import runpy
import warnings
from dataclasses import replace

import numpy as np
import pytest

import embvar_kit as ek
from embvar_kit import cached, files

TEXT = ["The cat sat on the mat.", "A dog barked at the cat.", "The mat was red."] * 8


def corpus(name):
    """As many articles as there are folds, and some more."""
    titles = [f"article {at}" for at in range(len(TEXT))]
    return ek.Corpus(name, TEXT, titles, np.arange(1, len(TEXT) + 1))


@pytest.fixture
def at_home(tmp_path, monkeypatch):
    """A separate home with a small corpus, since the whole excerpt takes a minute."""
    (tmp_path / "models").symlink_to(ek.home() / "models")
    monkeypatch.setenv("EMBVAR_HOME", str(tmp_path))
    monkeypatch.setattr(files, "checkout", lambda: tmp_path / "repository")
    monkeypatch.setattr(cached, "load_corpus", corpus)
    return tmp_path


def test_both_sites_are_made_in_one_pass_and_once(at_home, monkeypatch):
    made = ek.cached_statistics("minilm", "wikipedia", progress=False)
    monkeypatch.setattr("embvar_kit.extraction.extract.extract", None)  # a second pass would fail
    again = ek.cached_statistics("minilm", "wikipedia", progress=False)
    np.testing.assert_array_equal(made.V, again.V)
    unit = ek.cached_statistics(site="unit", progress=False)
    np.testing.assert_allclose(unit.Q, 1, rtol=1e-6)
    assert unit.info["convention"]["site"] == "unit"


def test_make_pass_is_interrupted_with_one_line(at_home, monkeypatch, capsys):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("embvar_kit.models.loading.load_model", stop)
    with warnings.catch_warnings(), pytest.raises(SystemExit) as ended:
        warnings.simplefilter("ignore", RuntimeWarning)  # the module is imported here before
        runpy.run_module("embvar_kit.cached", run_name="__main__")
    assert ended.value.code == 130
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and f"kept in '{at_home / 'cache'}'" in err


def test_those_without_high_norms_are_kept_apart(at_home, monkeypatch):
    whole = ek.cached_statistics(progress=False)
    made = ek.cached_statistics(high_norm=False, progress=False)
    assert "[CLS]" in whole.tokens and "[CLS]" not in made.tokens
    assert made.info["convention"]["leave_out"]["found"]["norm"] == cached.NORM
    assert made.null is not None and made.folds is not None
    monkeypatch.setattr("embvar_kit.extraction.extract.extract", None)  # another pass would fail
    for wanted, high_norm in ((whole, True), (made, False)):
        again = ek.cached_statistics(high_norm=high_norm, progress=False)
        np.testing.assert_array_equal(again.n, wanted.n)
    # One in the folder of the other is not taken for it.
    ordinary = at_home / "cache" / "minilm-wikipedia-ordinary"
    whole.save(ordinary / "hidden")
    with pytest.raises(TypeError, match="not callable"):
        ek.cached_statistics(high_norm=False, progress=False)


def test_another_kits_statistics_are_made_again(at_home):
    made = ek.cached_statistics(progress=False)
    folder = at_home / "cache" / "minilm-wikipedia" / "hidden"
    replace(made, info={**made.info, "kit_version": "0.0.0"}).save(folder)
    assert ek.cached_statistics(progress=False).info["kit_version"] == ek.__version__
    metadata = json.loads((folder / "metadata.json").read_text())
    assert metadata["info"]["kit_version"] == ek.__version__


def test_shipped_statistics_are_taken_where_none_are_cached(at_home, monkeypatch):
    made = ek.cached_statistics(progress=False)
    made.compact(min_count=1).save(
        at_home / "repository" / "data" / "stats" / "minilm-wikipedia" / "hidden"
    )
    monkeypatch.setattr("embvar_kit.extraction.extract.extract", None)
    (at_home / "cache").rename(at_home / "elsewhere")
    found = ek.cached_statistics(progress=False)
    assert found.mean is None and found.decompositions is not None


def test_files_replaced_while_they_are_read_need_no_new_pass(at_home, monkeypatch):
    ek.cached_statistics(progress=False)
    monkeypatch.setattr("embvar_kit.extraction.extract.extract", None)
    load, tries = ek.TokenStatistics.load, []

    def once_too_late(folder):
        tries.append(folder)
        if len(tries) == 1:
            raise ek.StatisticsFileError("a file is gone")
        return load(folder)

    monkeypatch.setattr(cached.TokenStatistics, "load", once_too_late)
    assert len(ek.cached_statistics(progress=False)) > 0
    assert len(tries) == 2


def test_only_what_is_bundled_has_a_name():
    for arguments in ({"model": "nobody"}, {"corpus": "x.txt"}, {"site": "nowhere"}):
        with pytest.raises(ek.ExtractionError, match="cached by name"):
            ek.cached_statistics(**arguments)
