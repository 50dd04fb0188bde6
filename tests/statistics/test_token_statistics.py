"""The labelled result: its tables, its file, its merge."""

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from brute_force import two_pass
from paths import ROOT
from safetensors.numpy import load_file

import embvar_kit as ek
from embvar_kit.statistics.compaction import CHOICES
from embvar_kit.statistics.storage import FORMAT, read, write
from embvar_kit.statistics.token_statistics import TokenStatistics

WORDS = np.array(["the", "cat", "dog", "[CLS]", "rare"], dtype=object)
INFO = {
    "kit_version": "0",
    "model": {"name": "toy", "revision": "r1", "device": "cpu"},
    "corpora": [{"name": "made up", "fingerprint": "a", "settings": {}}],
    "convention": {"by": "token"},
    "counts": {"tokens": 60},
}


def statistics_of(x: np.ndarray, token: np.ndarray, part: str = "a") -> TokenStatistics:
    """Statistics of two layers, ``x`` and ``2 x + 1``, over the words that occur."""
    seen = [t for t in range(len(WORDS)) if (token == t).any()]
    seen.sort(key=lambda t: (-(token == t).sum(), WORDS[t]))
    mean = np.empty((2, len(seen), x.shape[1]), dtype=np.float32)
    extra = np.empty(mean.shape, dtype=np.int8)
    moments = []
    for at, layer in enumerate((x, 2 * x + 1)):
        m = ek.GroupedMoments(len(seen), x.shape[1], mean=mean[at], extra=extra[at])
        for rank, t in enumerate(seen):
            own = layer[token == t]
            m.update(own, np.full(len(own), rank))
        moments.append(m)
    info = {**INFO, "corpora": [{**INFO["corpora"][0], "fingerprint": part}]}
    return TokenStatistics.from_moments(
        moments,
        tokens=WORDS[seen],
        special=np.array([WORDS[t].startswith("[") for t in seen]),
        layers=np.array([0, 3]),
        mean=mean,
        extra=extra,
        info={**info, "counts": {"tokens": len(x)}},
    )


@pytest.fixture
def data() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    token = np.concatenate([[0] * 25, [1] * 12, [2] * 11, [3] * 11, [4]])
    x = rng.normal(size=(5, 6))[token] * 3 + rng.normal(size=(len(token), 6))
    shuffled = rng.permutation(len(token))
    return x[shuffled].astype(np.float32), token[shuffled]


@pytest.fixture
def stats(data) -> TokenStatistics:
    return statistics_of(*data)


def test_table_is_the_definition(stats, data):
    x, token = data
    table = stats.table(layer=3)
    assert list(table) == ["token", "n", "Q", "M", "V"]
    assert table["token"].tolist() == ["the", "cat", "[CLS]", "dog", "rare"]
    for row in table.itertuples():
        own = (2 * x + 1)[token == WORDS.tolist().index(row.token)]
        assert row.n == len(own)
        assert (row.Q, row.M, row.V) == pytest.approx(two_pass(own), rel=1e-5, abs=1e-9)


def test_table_takes_ranges_and_leaves_special_tokens_out(stats):
    chosen = stats.table(0, min_count=11, max_count=12, special=False)
    assert chosen["token"].tolist() == ["cat", "dog"]
    unbiased = stats.table(0, unbiased=True)
    plain = stats.table(0)
    np.testing.assert_allclose(unbiased.M + unbiased.V, unbiased.Q.where(unbiased.n > 1))
    assert (unbiased.V > plain.V)[:4].all() and np.isnan(unbiased.V[4])


def test_a_layer_that_was_not_extracted_is_named(stats):
    with pytest.raises(ek.StatisticsError, match="Layer 1 was not extracted; the layers are 0, 3"):
        stats.table(layer=1)


def test_tradeoff_uses_the_tokens_in_range(stats):
    rows = stats.tradeoff()
    line = ["n_tokens", "cv_Q", "slope", "intercept", "r2", "sd_Q", "sd_M", "r", "rho"]
    assert list(rows) == ["layer", *line]
    assert rows["layer"].tolist() == [0, 3] and rows["n_tokens"].tolist() == [4, 4]
    table = stats.table(0, min_count=10)
    slope, intercept = np.polyfit(table.M, table.V, 1)
    assert rows.loc[0, "slope"] == pytest.approx(slope)
    assert rows.loc[0, "intercept"] == pytest.approx(intercept)
    assert stats.tradeoff(special=False)["n_tokens"].tolist() == [3, 3]
    with pytest.raises(ek.StatisticsError, match="lower min_count"):
        stats.tradeoff(min_count=1000)
    with pytest.raises(ek.StatisticsError, match="min_count=2"):
        stats.tradeoff(min_count=1, unbiased=True)


def test_decomposition_is_over_the_chosen_tokens(stats, data):
    x, token = data
    rows = stats.decomposition()
    assert list(rows) == ["layer", "Q", "M", "V", "V_W", "V_B"]
    chosen = x[token != 4]
    assert tuple(rows.loc[0, ["Q", "M", "V"]]) == pytest.approx(two_pass(chosen), rel=1e-5)
    np.testing.assert_allclose(rows.V, rows.V_W + rows.V_B)
    np.testing.assert_allclose(rows.Q, rows.M + rows.V, rtol=1e-6)
    with pytest.raises(ek.StatisticsError, match="No token is left"):
        stats.decomposition(min_count=1000)


def test_saved_and_loaded_is_the_same(stats, tmp_path):
    loaded = TokenStatistics.load(stats.save(tmp_path / "deep" / "folder"))
    for name in ("tokens", "special", "layers", "n", "Q", "M", "V", "mean", "extra"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(stats, name))
    assert loaded.info == stats.info
    pd.testing.assert_frame_equal(loaded.decomposition(), stats.decomposition())


def test_readable_without_the_kit(stats, tmp_path):
    stats.save(tmp_path)
    metadata = json.loads((tmp_path / "metadata.json").read_text())
    table = pd.read_parquet(tmp_path / metadata["files"]["table"]["name"])
    mean = load_file(tmp_path / metadata["files"]["mean"]["name"])["mean"]
    assert len(table) == 10 and mean.shape == (2, 5, 6)
    assert table[table.layer == 3].V.tolist() == stats.table(3).V.tolist()


def test_statistics_without_means(stats, tmp_path):
    slim = TokenStatistics(**{**vars(stats), "mean": None, "extra": None})
    loaded = TokenStatistics.load(slim.save(tmp_path))
    assert loaded.mean is None
    pd.testing.assert_frame_equal(loaded.tradeoff(), stats.tradeoff())
    with pytest.raises(ek.StatisticsError, match="needs the token means"):
        loaded.decomposition()


def test_every_truncation_and_alteration_is_refused_by_name(stats, tmp_path):
    whole = stats.save(tmp_path / "whole")
    rng = np.random.default_rng(0)
    for file in sorted(whole.iterdir()):
        data = file.read_bytes()
        lengths = {0, 1, len(data) // 2, len(data) - 1}
        broken = [data[:length] for length in lengths]
        for position in rng.integers(0, len(data), 20):
            flipped = bytearray(data)
            flipped[position] ^= 1 << rng.integers(8)
            broken.append(bytes(flipped))
        for content in broken:
            copy = tmp_path / "copy"
            shutil.copytree(whole, copy)
            (copy / file.name).write_bytes(content)
            with pytest.raises(ek.StatisticsFileError) as refusal:
                TokenStatistics.load(copy)
            assert file.name in str(refusal.value)
            shutil.rmtree(copy)
        copy = tmp_path / "copy"
        shutil.copytree(whole, copy)
        (copy / file.name).unlink()
        with pytest.raises(ek.StatisticsFileError, match=r"missing|no saved statistics") as refusal:
            TokenStatistics.load(copy)
        assert file.name in str(refusal.value) or file.name == "metadata.json"
        shutil.rmtree(copy)


def test_a_newer_format_is_refused(stats, tmp_path, monkeypatch):
    monkeypatch.setattr("embvar_kit.statistics.storage.FORMAT", FORMAT + 1)
    stats.save(tmp_path)
    monkeypatch.undo()
    with pytest.raises(ek.StatisticsFileError, match="update embvar-kit"):
        TokenStatistics.load(tmp_path)


def test_the_first_formats_extra_bytes_are_read_for_what_they_meant(stats, tmp_path, monkeypatch):
    """In format 1 a byte was added to the mean whatever its sign; now it counts away from zero."""
    assert (stats.mean < 0).any()
    assert stats.extra.any()
    first = np.where(stats.mean < 0, -stats.extra.astype(int), stats.extra).clip(-127, 127)
    monkeypatch.setattr("embvar_kit.statistics.storage.FORMAT", 1)
    replace(stats, extra=first.astype(np.int8)).save(tmp_path)
    monkeypatch.undo()
    read = TokenStatistics.load(tmp_path).extra.astype(int)
    assert np.abs(read - stats.extra).max() <= 1
    assert (read == stats.extra).mean() > 0.9


def test_means_larger_than_the_memory_are_worked_with_in_files(data, stats, tmp_path, monkeypatch):
    x, token = data
    parts = statistics_of(x[:30], token[:30]), statistics_of(x[30:], token[30:], "b")
    merged, chosen = parts[0].merge(parts[1]), stats.without(["cat"])
    monkeypatch.setattr("embvar_kit.moments.memory.fit_into_memory", lambda n_bytes: False)
    stats.save(tmp_path)
    read = TokenStatistics.load(tmp_path)
    for found, wanted in (
        (read, stats),
        (read.without(["cat"]), chosen),
        (parts[0].merge(parts[1]), merged),
    ):
        assert isinstance(found.mean.base, np.memmap)
        for name in ("n", "Q", "M", "V", "mean", "extra"):
            np.testing.assert_array_equal(getattr(found, name), getattr(wanted, name))
        pd.testing.assert_frame_equal(
            found.decomposition(min_count=1), wanted.decomposition(min_count=1)
        )


def test_means_that_fit_nowhere_are_refused_by_the_files_name(stats, tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    stats.save(tmp_path)
    monkeypatch.setattr("embvar_kit.moments.memory.fit_into_memory", lambda n_bytes: False)
    monkeypatch.setattr("os.posix_fallocate", full)
    with pytest.raises(ek.StatisticsFileError, match=r"mean-.*safetensors.*No space left"):
        TokenStatistics.load(tmp_path)


def test_saving_again_replaces_and_leaves_nothing_behind(stats, data, tmp_path):
    stats.save(tmp_path)
    before = set(tmp_path.iterdir())
    other = statistics_of(data[0] + 1, data[1])
    other.save(tmp_path)
    assert len(set(tmp_path.iterdir())) == len(before) == 3
    np.testing.assert_array_equal(TokenStatistics.load(tmp_path).Q, other.Q)


def test_a_save_that_fails_leaves_what_was_there(stats, data, tmp_path, monkeypatch):
    stats.save(tmp_path)
    other = statistics_of(data[0] + 1, data[1])

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    before = set(tmp_path.iterdir())
    here = "embvar_kit.statistics.storage"
    for step in ("os.replace", f"{here}.save_file", f"{here}.pq.write_table"):
        with monkeypatch.context() as patched:
            patched.setattr(step, full)
            with pytest.raises(ek.StatisticsFileError, match="No space left"):
                other.save(tmp_path)
        assert set(tmp_path.iterdir()) == before
    np.testing.assert_array_equal(TokenStatistics.load(tmp_path).Q, stats.Q)
    (tmp_path / "a file").write_text("")
    with pytest.raises(ek.StatisticsFileError, match="a file"):
        other.save(tmp_path / "a file")


def test_an_interrupted_save_is_whole_or_not_there(stats, data, tmp_path, monkeypatch):
    stats.save(tmp_path)
    other = statistics_of(data[0] + 1, data[1])
    replace = os.replace

    def interrupted(*paths):
        replace(*paths)
        if paths[1].name == "metadata.json":
            raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        other.save(tmp_path)
    assert len(set(tmp_path.iterdir())) == 3
    np.testing.assert_array_equal(TokenStatistics.load(tmp_path).Q, other.Q)


def test_a_full_disk_is_a_failure_that_is_named(stats, tmp_path):
    """The operating system limits the size of this process's files."""
    resource = pytest.importorskip("resource")
    stats.save(tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (200, limits[1]))
        with pytest.raises(ek.StatisticsFileError, match="too large"):
            stats.save(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    assert len(set(tmp_path.iterdir())) == 3
    TokenStatistics.load(tmp_path)


def test_what_cannot_be_read_is_named(stats, tmp_path, monkeypatch):
    def denied(path, *_, **__):
        raise PermissionError(13, "Permission denied", str(path))

    whole = stats.save(tmp_path / "whole")
    for step, name in (("Path.read_text", "metadata.json"), ("sha256_of", "table-")):
        with monkeypatch.context() as patched:
            patched.setattr(f"embvar_kit.statistics.storage.{step}", denied)
            with pytest.raises(ek.StatisticsFileError, match=rf"{name}.*Permission denied"):
                TokenStatistics.load(whole)
    mean = next(whole.glob("mean-*"))
    mean.unlink()
    mean.mkdir()
    with pytest.raises(ek.StatisticsFileError, match=rf"{mean.name}' cannot be read"):
        TokenStatistics.load(whole)


def test_what_a_killed_save_left_is_removed_once_it_is_old(stats, tmp_path):
    """What looks like it but has a name of its own is the user's, and stays."""
    stats.save(tmp_path)
    ours = ["table-lost1234.parquet", "mean-lost1234.safetensors", ".metadata-lost1234.json"]
    scratch = [".table-lost1234.parquet.writing-a1b2c3d4", ".metadata.json.writing-a1b2c3d4"]
    new = "table-new12345.parquet"
    users = ["notes.txt", "table-mine.parquet", "mean-final.safetensors", "metadata-old.json"]
    user_folders = [".tmpAbC123", ".table-v1.parquet-bak", "mean-backup12.safetensors"]
    for name in (*ours, new, *users):
        (tmp_path / name).write_text("")
    for name in (*scratch, *user_folders):
        (tmp_path / name).mkdir()
    for name in (*ours, *scratch, *users, *user_folders):
        os.utime(tmp_path / name, (0, 0))
    stats.save(tmp_path)
    left = {path.name for path in tmp_path.iterdir()}
    assert {new, *users, *user_folders} < left and not left & {*ours, *scratch}
    assert len(left) == 3 + 1 + len(users) + len(user_folders)
    TokenStatistics.load(tmp_path)


def test_statistics_of_no_token_are_not_saved(stats, tmp_path):
    stats.save(tmp_path)
    with pytest.raises(ek.StatisticsFileError, match="hold no token"):
        stats.take(np.zeros(0, dtype=int)).save(tmp_path)
    assert TokenStatistics.load(tmp_path).tokens.tolist() == stats.tokens.tolist()


def test_others_may_read_what_is_saved(stats, tmp_path):
    stats.save(tmp_path)
    for path in tmp_path.iterdir():
        assert path.stat().st_mode & 0o777 == 0o644, path.name


def test_statistics_are_compacted_once(stats):
    with pytest.raises(ek.StatisticsError, match="Compacting needs the token means"):
        stats.compact(min_count=1).compact(min_count=1)


SAVES = """
import sys
from pathlib import Path
import numpy as np, pandas as pd
from embvar_kit.statistics.storage import write

folder, number, stop = Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
print("ready", flush=True)
sys.stdin.readline()
while not stop.exists():
    table = pd.DataFrame({"x": [number] * 1000})
    tensors = {"mean": {"mean": np.full((2, 3, 5), number, dtype=np.float32)}}
    write(folder, {"table": table}, tensors, {"number": number})
"""


def test_two_processes_save_while_a_third_reads(tmp_path):
    """Every read gives all of what one save wrote."""
    folder, stop = tmp_path / "statistics", tmp_path / "stop"
    means = {"mean": np.zeros((2, 3, 5), dtype=np.float32)}
    write(folder, {"table": pd.DataFrame({"x": [0]})}, {"mean": means}, {"number": 0})
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", SAVES, folder, str(number), stop],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        for number in (1, 2)
    ]
    for writer in writers:
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        writer.stdin.write("go\n")
        writer.stdin.flush()
    seen = []
    try:
        # On a busy machine one writer may be done before the other begins: read until both wrote.
        while len(seen) < 30 or not {1, 2} <= set(seen):
            tables, tensors, info = read(folder)
            assert {*tables["table"]["x"], *tensors["mean"]["mean"].ravel()} == {info["number"]}
            assert all(writer.poll() is None for writer in writers)
            seen.append(info["number"])
    finally:
        stop.touch()
    for writer in writers:
        writer.communicate()
        assert writer.returncode == 0
    tables, tensors, info = read(folder)
    assert {*tables["table"]["x"], *tensors["mean"]["mean"].ravel()} == {info["number"]} < {1, 2}


@pytest.mark.parametrize("cut", [1, 20, 45, 59])
def test_merging_two_parts_gives_the_whole(data, stats, cut):
    x, token = data
    merged = statistics_of(x[:cut], token[:cut], "a").merge(
        statistics_of(x[cut:], token[cut:], "b")
    )
    assert merged.tokens.tolist() == stats.tokens.tolist()
    np.testing.assert_array_equal(merged.n, stats.n)
    np.testing.assert_array_equal(merged.special, stats.special)
    for name in "QMV":
        np.testing.assert_allclose(
            getattr(merged, name), getattr(stats, name), rtol=1e-6, atol=1e-9
        )
    np.testing.assert_allclose(merged.mean, stats.mean, rtol=1e-5, atol=1e-6)
    pd.testing.assert_frame_equal(merged.decomposition(), stats.decomposition(), rtol=1e-6)
    assert [c["fingerprint"] for c in merged.info["corpora"]] == ["a", "b"]
    assert merged.info["counts"] == stats.info["counts"]


@pytest.mark.parametrize("saved", [False, True])
def test_hundreds_of_merges_stay_accurate_where_V_is_tiny(saved, tmp_path):
    """Without the means' extra bytes the error would be ten times the bound here."""
    rng = np.random.default_rng(0)
    x = (rng.normal(size=3) + 4e-4 * rng.normal(size=(600, 3))).astype(np.float32)
    parts = [
        statistics_of(part, np.zeros(len(part), dtype=int), str(number))
        for number, part in enumerate(np.split(x, 150))
    ]
    whole = parts[0]
    for number, part in enumerate(parts[1:]):
        if saved and number % 30 == 0:
            whole = TokenStatistics.load(whole.save(tmp_path))
        whole = whole.merge(part)
    Q, _, V = two_pass(x)
    assert V / Q > 1e-7
    assert whole.V[0, 0] == pytest.approx(V, rel=1e-6)


def test_what_does_not_belong_together_is_not_merged(stats, data):
    with pytest.raises(ek.StatisticsError, match="count it twice"):
        stats.merge(stats)
    other = statistics_of(*data, "b")
    other.info["model"] = {**other.info["model"], "revision": "r2"}
    with pytest.raises(ek.StatisticsError, match="model revision: 'r1' and 'r2'"):
        stats.merge(other)
    other.info["model"] = {**stats.info["model"], "device": "cuda"}
    assert stats.merge(other).n.sum() == 2 * stats.n.sum()
    fewer = TokenStatistics(**{**vars(other), "layers": np.array([0, 4])})
    with pytest.raises(ek.StatisticsError, match="different layers"):
        stats.merge(fewer)


def test_a_merge_names_all_that_its_parts_were_measured_with(data):
    x, token = data
    third = len(x) // 3

    def part(at: int, **told: list) -> TokenStatistics:
        own = slice(at * third, (at + 1) * third)
        made = statistics_of(x[own], token[own], "abc"[at])
        return replace(made, info={**made.info, **told})

    one, other = {"attention": "sdpa"}, {"attention": "eager"}
    merged = part(0, environments=[one]).add(part(1, environments=[other]))
    assert merged.info["environments"] == [one, other]
    assert merged.add(part(2, environments=[one])).info["environments"] == [one, other]
    assert merged.add(part(2)).info["environments"] == [one, other, None], "an older kit kept none"
    assert "environments" not in part(0).add(part(1)).info


def test_a_part_of_the_tokens_is_not_merged_for_the_whole(stats, data, tmp_path):
    """A token that was not taken would count in one part only."""
    x, token = data
    other = statistics_of(x, token, part="b")
    part = stats.take(np.arange(1, len(stats)))
    for taken in (part, TokenStatistics.load(part.save(tmp_path))):
        for merge in (lambda one=taken: one.merge(other), lambda one=taken: other.merge(one)):
            with pytest.raises(ek.StatisticsError, match=r"a part of the tokens .* merge first"):
                merge()
    backwards = stats.take(np.arange(len(stats))[::-1]).merge(other)
    whole = stats.merge(other)
    assert backwards.tokens.tolist() == whole.tokens.tolist()
    np.testing.assert_array_equal(backwards.n, whole.n)
    unseen = replace(stats, n=np.r_[stats.n[:-1], 0])
    assert unseen.take(np.arange(len(stats) - 1)).merge(other).n.sum() == 2 * len(x) - 1


def test_tokens_are_left_out_of_everything(stats, data):
    x, token = data
    part = stats.without(["cat", "nobody"])
    assert part.info["left_out"] == ["cat"] and "left_out" not in stats.info
    expected = statistics_of(x[token != 1], token[token != 1])
    assert part.tokens.tolist() == expected.tokens.tolist()
    choice = {"min_count": 2, "max_count": None}
    pd.testing.assert_frame_equal(part.table(3), expected.table(3))
    pd.testing.assert_frame_equal(part.tradeoff(**choice), expected.tradeoff(**choice))
    pd.testing.assert_frame_equal(part.decomposition(**choice), expected.decomposition(**choice))
    assert part.without(["dog"]).info["left_out"] == ["cat", "dog"]
    assert len(stats) == len(part) + 1
    with pytest.raises(ek.StatisticsError, match=r"Tokens were left out .*'cat'"):
        part.merge(statistics_of(x, token, "b"))


def test_tokens_of_high_norm_are_found_by_their_rule(data):
    x, token = data
    assert statistics_of(x, token).high_norm().empty
    x = np.where((token == 1)[:, None], 40 * x, x).astype(np.float32)
    x = np.where((token == 4)[:, None], 400 * x, x).astype(np.float32)  # occurs once
    stats = statistics_of(x, token)
    found = stats.high_norm()
    assert found.columns.tolist() == ["token", "n", "layer", "Q", "ratio", "begin", "first"]
    kept = stats.n >= 10
    ratio = stats.Q[:, kept] / np.median(stats.Q[:, kept], axis=1, keepdims=True)
    of_cat = ratio[:, stats.tokens[kept] == "cat"].ravel()
    assert (of_cat >= 10).all()
    assert found["token"].tolist() == ["cat", "cat"] and found["layer"].tolist() == [0, 3]
    np.testing.assert_allclose(found["ratio"], of_cat)
    for row in found.itertuples():
        assert row.n == 12
        assert stats.table(row.layer).set_index("token").loc["cat", "Q"] == row.Q
    assert found[["begin", "first"]].isna().all(axis=None)  # these statistics do not know
    rare = stats.high_norm(min_count=1)
    assert rare["layer"].tolist() == sorted(rare["layer"])
    assert (np.diff(rare.query("layer == 3")["ratio"]) <= 0).all()
    assert set(rare["token"]) == {"rare", "cat"}
    assert stats.high_norm(factor=1e9).empty and stats.high_norm(min_count=1000).empty
    assert stats.without(found["token"]).high_norm().empty
    only_at_0 = stats.high_norm(factor=of_cat.max())
    assert only_at_0["layer"].tolist() == [stats.layers[of_cat.argmax()]]


def test_a_token_of_high_norm_is_given_once_at_its_peak(data):
    x, token = data
    x = np.where((token == 1)[:, None], 40 * x, x).astype(np.float32)
    x = np.where((token == 4)[:, None], 400 * x, x).astype(np.float32)
    stats = statistics_of(x, token)
    each = stats.high_norm(min_count=1)
    peaks = stats.high_norm(min_count=1, peak=True)
    assert peaks["token"].tolist() == ["rare", "cat"]
    expected = each.loc[each.groupby("token")["ratio"].idxmax()]
    expected = expected.sort_values("ratio", ascending=False, ignore_index=True)
    pd.testing.assert_frame_equal(peaks, expected)
    pd.testing.assert_frame_equal(stats.sinks(min_count=1), peaks.iloc[:, :5])  # its older name


def test_the_profile_of_a_high_norm_is_the_share_of_its_occurrences_in_front(data):
    x, token = data
    x = np.where((token == 1)[:, None], 40 * x, x).astype(np.float32)
    stats = statistics_of(x, token)
    at = stats.tokens.tolist().index("cat")
    counts = {name: np.zeros(len(stats), dtype=np.int64) for name in ("begin", "first")}
    counts["first"][at] = 9
    row = replace(stats, counts=counts).high_norm(peak=True).iloc[0]
    assert (row.token, row.begin, row["first"]) == ("cat", 0, 9 / 12)


def test_compact_statistics_say_the_same_without_means(stats, tmp_path):
    compact = stats.compact(left_out=[(), ["cat"]])
    assert compact.mean is None and compact.tokens.tolist() == ["the", "cat", "[CLS]", "dog"]
    loaded = TokenStatistics.load(compact.save(tmp_path))
    for found in (compact, loaded):
        assert found.info["compact"] == {"min_count": 10}
        columns = ["Q", "M", "V"]
        expected = stats.table(3, min_count=10)
        np.testing.assert_allclose(found.table(3, min_count=10)[columns], expected[columns], 1e-6)
        np.testing.assert_allclose(found.tradeoff(), stats.tradeoff(), rtol=1e-4)
        for choice in CHOICES:
            pd.testing.assert_frame_equal(
                found.decomposition(**choice), stats.decomposition(**choice)
            )
            pd.testing.assert_frame_equal(
                found.without(["cat"]).decomposition(**choice),
                stats.without(["cat"]).decomposition(**choice),
            )
    assert set(tmp_path.glob("*.parquet")) == {
        *tmp_path.glob("table-*"),
        *tmp_path.glob("decompositions-*"),
    }


@pytest.mark.parametrize("scale", [1e-19, 1e19])
def test_compact_statistics_keep_norms_beyond_float32(stats, tmp_path, scale):
    """Squares of embeddings that float32 holds need not fit into it."""
    squared = {name: getattr(stats, name) * scale**2 for name in "QMV"}
    mean = (stats.mean * scale).astype(np.float32)
    scaled = replace(stats, **squared, mean=mean, extra=np.zeros_like(stats.extra))
    small = TokenStatistics.load(scaled.compact().save(tmp_path))
    found, wanted = small.tradeoff(), stats.compact().tradeoff()
    np.testing.assert_allclose(found["slope"], wanted["slope"], rtol=1e-6)
    np.testing.assert_allclose(found["sd_M"], wanted["sd_M"] * scale**2, rtol=1e-6)
    assert stats.compact().Q.dtype == np.float32


def test_compact_statistics_refuse_what_they_cannot_say(stats):
    compact = stats.compact()
    for refused in (
        lambda: compact.decomposition(min_count=7),
        lambda: compact.decomposition(max_count=99),
        lambda: compact.without(["cat"]).decomposition(),
        lambda: compact.decomposition(min_count=1, max_count=None, unbiased=True),
    ):
        with pytest.raises(ek.StatisticsError, match=r"compact: .*not among the choices stored"):
            refused()
    with pytest.raises(ek.StatisticsError, match="keep only the tokens with n_t >= 10"):
        compact.table(0)
    with pytest.raises(ek.StatisticsError, match="needs the token means"):
        compact.merge(compact)


def test_two_statistics_can_be_compared(stats):
    """They compare as objects: comparing arrays would make == ambiguous."""
    assert stats == stats and stats != stats.without([])
