"""Loading a tokenizer and a Transformer so that every hidden state can be read.

Nothing here depends on the name of an architecture. What a model is like (number of hidden states,
width, longest input, where it normalizes) is read from its configuration or observed while it runs
short sentences (see :mod:`embvar_kit.models.probe`). What is put around a sentence is told in
:mod:`embvar_kit.models.around`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from embvar_kit.errors import EmbvarError, ModelError, first_line
from embvar_kit.files import sha256_of
from embvar_kit.hub import cached_snapshot
from embvar_kit.models import from_hub
from embvar_kit.models.around import begin_and_end, sample_ids
from embvar_kit.models.bundled import BUNDLED, verify
from embvar_kit.models.capturing import capturing
from embvar_kit.models.from_transformers import Loaded, load, read_tokenizer
from embvar_kit.models.identity import digests
from embvar_kit.models.limits import max_tokens, tried_max_tokens
from embvar_kit.models.normalization import StateNorm, placement
from embvar_kit.models.parts import bare, for_text, vocabulary_rows, without_pooler
from embvar_kit.models.probe import Observation, probe
from embvar_kit.models.running import cut, input_device, run, running, states_in, states_of
from embvar_kit.models.silence import quiet
from embvar_kit.models.unplaced import check_gguf_places, check_places
from embvar_kit.models.weight_files import check_files, is_gguf, refuse_adapter
from embvar_kit.threads import limit_threads

Keep = Callable[..., Mapping[int, torch.Tensor]]
"""What :meth:`EmbeddingModel.keeping` yields."""


@dataclass(frozen=True)
class EmbeddingModel:
    """A Transformer, its tokenizer, and what the kit found out about the two.

    Attributes:
        name: alias, folder name or Hub name.
        revision: Hub commit, or the start of the weights' SHA-256 for local files.
        module: the transformers model without head and pooler, in evaluation mode.
        tokenizer: the model's tokenizer.
        device: the device that holds the module, or the one that takes the token ids of a module
            that is spread over several.
        n_states: number of hidden states: one for the embedding layer and one per layer.
        width: ``d``, the length of an embedding.
        max_tokens: longest sequence the model accepts, begin and end tokens included, or ``None``
            if it sets no limit.
        begin, end: vocabulary ids put before and after each sentence; empty for none.
        norms: the normalizations around each hidden state, one entry per state.
        ignores_padding: whether a sentence has the same states in a padded batch as alone; if not,
            only sentences of equal length are run together.
        shares_batches: whether it has the same states beside another of equal length; if not, each
            sentence is run alone.
        needs_mask: whether a mask is passed even where nothing is padded, since the model makes one
            of its own otherwise.
        notes: what was done otherwise than the model's files say, a line each.
        source: arguments of :func:`load_model` with which another process loads the same model,
            on one device; ``None`` for a model that was made or changed in memory.
        places: the device where each hidden state is made, of a module that is spread over
            several; else ``None``.
    """

    name: str
    revision: str | None
    module: Any
    tokenizer: Any
    device: torch.device
    n_states: int
    width: int
    max_tokens: int | None
    begin: tuple[int, ...]
    end: tuple[int, ...]
    norms: tuple[StateNorm, ...]
    ignores_padding: bool = True
    shares_batches: bool = True
    needs_mask: bool = False
    notes: tuple[str, ...] = ()
    source: Mapping[str, Any] | None = None
    places: tuple[torch.device, ...] | None = None

    def __repr__(self) -> str:
        return (
            f"EmbeddingModel({self.name!r}: {type(self.module).__name__}, {self.n_states} hidden "
            f"states of width {self.width}, torch.{self.dtype}, on {self.device})"
        )

    @property
    def dtype(self) -> str:
        """Data type of the weights, for example ``"float32"``."""
        return str(_dtype_of(self.module)).removeprefix("torch.")

    def place(self, layer: int) -> torch.device:
        """The device where a hidden state is made, and where its moments are best kept."""
        return self.places[layer] if self.places else self.device

    @property
    def vocabulary_rows(self) -> int | None:
        """Number of vocabulary ids that the model has an embedding for; ``None`` if unknown."""
        return vocabulary_rows(self.module)

    @property
    def padding(self) -> int:
        """Vocabulary id that shorter sentences of a batch are filled up with.

        The tokenizer's ``pad`` token; id 0 if it has none, or one that the model has no row for.
        The mask hides it either way.
        """
        return _padding(self.module, self.tokenizer)

    @property
    def final_norm(self) -> str | None:
        """Class of the normalization whose output is the last hidden state, if there is one."""
        last = self.norms[-1].produced_by
        return last.name if last else None

    @property
    def normalization(self) -> str:
        """Where the blocks normalize, judged by the hidden states between them.

        ``"post"``: each is the output of a normalization. ``"pre"``: each is the input of one (the
        residual stream). ``"none"``: neither.
        """
        return placement(self.norms)

    @cached_property  # it takes a third of a second with a large vocabulary
    def digests(self) -> dict[str, str]:
        """Short digests of ``configuration`` and ``tokenizer``, and of ``code`` if it brings any.

        Models of the same weights may differ in them, and then give other numbers.
        """
        return digests(self.module, self.tokenizer, self.begin, self.end)

    def hidden_states(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, ...]:
        """The ``n_states`` hidden states ``(batch, length, d)`` of a batch of token ids.

        Args:
            input_ids: ``(batch, length)``, on the model's device.
            attention_mask: ``(batch, length)``, 1 for a token and 0 for padding; may be left out
                if nothing is padded.
        """
        return states_of(self.module, input_ids, self._mask(input_ids, attention_mask))

    @contextmanager
    def keeping(self, layers: Sequence[int], ids: torch.Tensor) -> Iterator[Keep]:
        """While the context lasts, the model can be run so that it keeps some hidden states only.

        Args:
            layers: the hidden states wanted.
            ids: ``(1, length)`` a sequence to find out on where they come from.

        Yields:
            A function that takes what :meth:`hidden_states` takes and gives those of these layers,
            ``{layer: (batch, length, d)}``, the same to the bit. Where the model does not let them
            be kept alone, all are there.
        """

        def whole(
            input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None
        ) -> dict[int, torch.Tensor]:
            given = run_once(input_ids, self._mask(input_ids, attention_mask), states=True)
            states = (cut(state, input_ids.shape[1]) for state in states_in(given))
            return dict(enumerate(states))

        def kept(
            input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None
        ) -> dict[int, torch.Tensor]:
            run_once(input_ids, self._mask(input_ids, attention_mask))
            length = input_ids.shape[1]
            states = {layer: cut(state, length) for layer, state in taps.items()}
            taps.clear()
            there = set(layers) <= states.keys()
            if there and all(state.shape[:2] == input_ids.shape for state in states.values()):
                return states
            return whole(input_ids, attention_mask)  # it runs other modules in other batches

        # Where the model itself returns its states, they have all been moved to one device.
        if len(layers) == self.n_states and self.places is None:
            with running(self.module) as run_once:
                yield whole
            return
        with (
            capturing(self.module, layers, ids, self._mask(ids, None)) as taps,
            running(self.module) as run_once,
        ):
            yield whole if taps is None else kept

    def _mask(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None
    ) -> torch.Tensor | None:
        """The mask to run with, where none is given."""
        if attention_mask is None and self.needs_mask:
            return torch.ones_like(input_ids)
        return attention_mask


def load_model(
    name: str | Path,
    *,
    device: str | torch.device = "auto",
    dtype: str | torch.dtype = "float32",
    revision: str | None = None,
    trust_remote_code: bool = False,
    device_map: str | Mapping[str, Any] | None = None,
) -> EmbeddingModel:
    """Load an encoder or decoder from a bundled alias, a folder, a GGUF file or the Hub.

    Args:
        name: ``"minilm"`` or ``"smollm2"``; a folder with a transformers model or a ``.gguf``
            file; a ``.gguf`` file; or a name on the Hub such as ``"bert-base-uncased"``. A model
            in the Hub's cache is loaded from there without asking the network.
        device: ``"auto"`` picks CUDA, else Apple's MPS, else the CPU.
        dtype: data type of the weights. Statistics are kept in higher precision regardless.
        revision: branch, tag or commit on the Hub.
        trust_remote_code: run code that a folder or Hub repository brings (``auto_map`` in its
            ``config.json``). Otherwise transformers' own class is used if it has one, and the
            model is refused if it has none.
        device_map: spreads the model over several devices, in place of ``device``: ``"auto"``, or
            the device of each of its modules, as transformers' ``from_pretrained`` takes it. The
            moments of a hidden state are kept on the device where it is made.

    Returns:
        The model, after a trial run on one sentence.

    Raises:
        ModelError: if the model is unknown, missing, damaged, incomplete or unsafe to load, gives
            no hidden states, or cannot use the device or data type.
    """
    name = str(name)
    if device_map is not None and device != "auto":
        raise ModelError(
            f"device={device!r} takes the whole model, and device_map={device_map!r} spreads it: "
            "name one of them."
        )
    if isinstance(device_map, Mapping) and not device_map:
        raise ModelError(
            "device_map={} gives no device for any part of the model: name the device of each of "
            "its modules ('' is the whole model), or give 'auto'."
        )
    torch_device = None if device_map is not None else _device(device)
    torch_dtype = _dtype(dtype)
    limit_threads()
    with _only_own_errors(name):
        folder, gguf, label = _locate(name)
        if folder and name not in BUNDLED:
            check_files(folder, gguf, label)
    # Pass False explicitly; otherwise transformers prompts on the terminal.
    options: dict[str, Any] = {"trust_remote_code": bool(trust_remote_code)}
    if gguf:
        options["gguf_file"] = gguf
    with quiet(), _only_own_errors(label):
        if folder is None:
            loaded = from_hub.load_from_hub(
                name,
                revision,
                lambda where, more: load(where, name, torch_dtype, {**options, **more}, device_map),
            )
        else:
            options["local_files_only"] = True
            loaded = load(str(folder), label, torch_dtype, options, device_map)
            if gguf and name not in BUNDLED:
                check_gguf_places(folder / gguf, loaded.module, label)
        model = _observed(loaded, torch_device, label)
        found = _weights_hash(name, folder, gguf) if folder else from_hub.commit(name, revision)
    # By its whole path, since another process may have another working folder.
    source = name if not folder or name in BUNDLED else str(Path(name).expanduser().resolve())
    return replace(
        model,
        revision=found,
        source={
            "name": source,
            "dtype": model.dtype,
            "revision": revision,
            "trust_remote_code": bool(trust_remote_code),
        },
    )


def check_model(name: str | Path, *, device: str | torch.device = "auto") -> None:
    """Refuse a model that :func:`load_model` would refuse for its name, its files or the device.

    Nothing is loaded, so that a long run need not start to find this out.

    Args:
        name, device: as in :func:`load_model`.

    Raises:
        ModelError: if the model is unknown or missing, its files are incomplete, or the device
            cannot be used.
    """
    name = str(name)
    _device(device)
    with _only_own_errors(name):
        folder, gguf, label = _locate(name)
        if folder is None:
            from_hub.check_available(name)
        elif name not in BUNDLED:
            check_files(folder, gguf, label)


def load_tokenizer(
    name: str, revision: str | None = None
) -> tuple[Any, tuple[int, ...], tuple[int, ...]]:
    """The tokenizer of a model on this machine, and the ids that it puts around each sentence.

    Args:
        name: as in :func:`load_model`; a name on the Hub only if the Hub's cache has it.
        revision: branch, tag or commit on the Hub.

    Raises:
        ModelError: if the model is not at hand, or its tokenizer is damaged.
    """
    with quiet(), _only_own_errors(name):
        folder, gguf, label = _locate(name)
        if folder is None and (folder := cached_snapshot(name, revision)) is None:
            raise ModelError(f"The Hub's cache does not hold {name!r}: load the model first.")
        options: dict[str, Any] = {"trust_remote_code": False, "local_files_only": True}
        if gguf:
            options["gguf_file"] = gguf
        tokenizer = read_tokenizer(str(folder), label, options)
        return tokenizer, *begin_and_end(tokenizer)


def _observed(loaded: Loaded, device: torch.device | None, label: str) -> EmbeddingModel:
    """What was loaded, cut to the part that gives hidden states and tried on short sentences.

    Without a device, it stays where it was loaded.
    """
    tokenizer, notes = loaded.tokenizer, list(loaded.notes)
    names = {id(weight): key for key, weight in _stored(loaded.module)}
    module = bare(loaded.module)
    inside = {own: names.get(id(weight)) for own, weight in _stored(module)}
    spread = device is None
    if spread:
        device = input_device(module)
    else:
        module = module.to(device)
    names = {id(weight): inside[own] for own, weight in _stored(module)}
    begin, end = begin_and_end(tokenizer)
    ids = sample_ids(tokenizer, begin, end)
    _check_ids(module, tokenizer, begin, end, ids, label)
    whole, module = module, for_text(module, ids, label)
    if module is not whole:
        notes.append(f"the part for text of {type(whole).__name__} was taken")
    module = without_pooler(module, ids)
    # A pooler that stayed reads the states and gives none: its weights do not matter.
    pooler = getattr(module, "pooler", None)
    unread = set() if pooler is None else {id(weight) for _, weight in _stored(pooler)}
    needed = {names.get(id(weight)) for _, weight in _stored(module) if id(weight) not in unread}
    check_places(loaded.module, module, loaded.unexpected, label)
    if absent := loaded.missing & needed:
        raise ModelError(
            f"The files of {label!r} lack weights that the model needs ({len(absent)}, among them "
            f"{min(absent)!r}); transformers would fill them with random numbers."
        )
    if wrong := loaded.mismatched.keys() & needed:
        name = min(wrong)
        held, wanted = loaded.mismatched[name]
        raise ModelError(
            f"{len(wrong)} weights in the files of {label!r} have other shapes than config.json "
            f"says, among them {name!r}: {held} in the file, {wanted} by the configuration. The "
            "two are of different models: copy or download both again."
        )
    found = probe(module, ids, _padding(module, tokenizer), label)
    limit, said = tried_max_tokens(module, ids), max_tokens(module)
    if limit != said:
        notes.append(f"inputs of more than {limit} tokens fail, whatever its files say ({said})")
    return EmbeddingModel(
        name=label,
        revision=None,
        module=module,
        tokenizer=tokenizer,
        device=device,
        n_states=found.n_states,
        width=found.width,
        max_tokens=limit,
        begin=begin,
        end=end,
        norms=found.norms,
        ignores_padding=found.ignores_padding,
        shares_batches=found.shares_batches,
        needs_mask=found.needs_mask,
        notes=tuple(notes),
        places=_places(module, found, ids, device) if spread else None,
    )


def _places(
    module: Any, found: Observation, ids: list[int], device: torch.device
) -> tuple[torch.device, ...] | None:
    """Where each hidden state is made, if not all are made on the device that takes the ids."""
    given = torch.tensor([ids], device=device)
    mask = torch.ones_like(given) if found.needs_mask else None
    with capturing(module, range(found.n_states), given, mask) as taps:
        if taps is None:  # then they are taken where the model returns them
            return None
        run(module, given, mask)
        places = tuple(taps[layer].device for layer in range(found.n_states))
    return None if set(places) == {device} else places


def _stored(module: Any) -> list[tuple[str, torch.Tensor]]:
    """What a module's files hold by name: its weights, and the buffers that are stored with them.

    Of several names of one weight the first is the last in the list.
    """
    return list(module.state_dict(keep_vars=True).items())[::-1]


def _check_ids(
    module: Any,
    tokenizer: Any,
    begin: tuple[int, ...],
    end: tuple[int, ...],
    ids: list[int],
    label: str,
) -> None:
    """Refuse a tokenizer whose ids the model has no embeddings for."""
    rows = vocabulary_rows(module)
    if rows is None or max(ids, default=0) < rows:
        return
    around = [i for i in (*begin, *end) if i >= rows]
    which = around[0] if around else max(ids)
    token = tokenizer.convert_ids_to_tokens(which)
    what = " around each sentence" if around else ""
    raise ModelError(
        f"The tokenizer of {label!r} gives id {which} ({token!r}){what}, and the model has "
        f"embeddings for 0 to {rows - 1} only: the two do not belong together. Save the tokenizer "
        "that the model was trained with beside it."
    )


def _padding(module: Any, tokenizer: Any) -> int:
    pad, rows = tokenizer.pad_token_id, vocabulary_rows(module)
    return 0 if pad is None or (rows is not None and pad >= rows) else pad


def _dtype_of(module: Any) -> torch.dtype:
    return next(weight.dtype for weight in module.parameters() if weight.is_floating_point())


@contextmanager
def _only_own_errors(label: str) -> Iterator[None]:
    """Turn whatever a library raises into a :class:`ModelError`."""
    try:
        yield
    except EmbvarError:
        raise
    except Exception as error:
        raise ModelError(
            f"Could not load the model {label!r}: {type(error).__name__}: {first_line(error)}"
        ) from error


def untrained(model: EmbeddingModel, seed: int = 0) -> EmbeddingModel:
    """A model's architecture and tokenizer with fresh random weights; its norms have γ = 1, β = 0.

    Args:
        model: the model to imitate; it is not changed.
        seed: seed of the weights, which are drawn as transformers initializes the architecture.

    Raises:
        ModelError: if the fresh model cannot run.
    """
    from transformers import AutoModel

    name = f"{model.name}, untrained"
    ids = sample_ids(model.tokenizer, model.begin, model.end)
    with torch.random.fork_rng(), quiet(), _only_own_errors(name):
        torch.manual_seed(seed)
        fresh = AutoModel.from_config(model.module.config, dtype=_dtype_of(model.module))
        module = without_pooler(bare(fresh).to(model.device), ids)
        found = probe(module, ids, model.padding, name)
    return replace(
        model,
        name=name,
        revision=f"seed:{seed}",
        source=None,
        places=None,
        module=module,
        norms=found.norms,
        ignores_padding=found.ignores_padding,
        shares_batches=found.shares_batches,
        needs_mask=found.needs_mask,
    )


def _device(device: str | torch.device) -> torch.device:
    if device == "auto":
        if torch.cuda.is_available():
            device = "cuda"
        else:
            device = "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        found = torch.device(device)
        torch.zeros(1, device=found).item()
    except (RuntimeError, AssertionError, TypeError) as error:
        raise ModelError(f"Device {device!r} cannot be used here: {first_line(error)}") from error
    return found


def _dtype(dtype: str | torch.dtype) -> torch.dtype:
    found = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise ModelError(f"Unknown dtype {dtype!r}: try float32, bfloat16 or float16.")
    return found


# Aliases, folders and files


def _locate(name: str) -> tuple[Path | None, str | None, str]:
    """``(folder, GGUF file in it, label)``; without a folder, the name is one on the Hub."""
    if name in BUNDLED:
        bundled = BUNDLED[name]
        verify(bundled)
        folder, label = bundled.path, name
    elif is_gguf(name):
        path = Path(name).expanduser()
        if not path.is_file():
            raise ModelError(f"There is no file {name!r}.")
        return path.parent, path.name, path.stem
    elif (folder := Path(name).expanduser()).is_dir():
        label = folder.resolve().name
    elif name.count("/") > 1 or name.startswith((".", "~", "/")):
        raise ModelError(f"There is no folder {name!r}.")
    else:
        return None, None, name
    refuse_adapter(folder, label)
    if (folder / "config.json").is_file():
        return folder, None, label
    ggufs = sorted(path for path in folder.iterdir() if is_gguf(path.name))
    if len(ggufs) == 1:
        return folder, ggufs[0].name, label
    raise ModelError(
        f"Folder {label!r} holds no config.json and {len(ggufs)} .gguf files: a model needs "
        "config.json, or exactly one .gguf file."
    )


def _weights_hash(name: str, folder: Path, gguf: str | None) -> str:
    """The revision of local files: the start of the weights' SHA-256."""
    if name in BUNDLED:  # verify() has already hashed the file and compared it
        return f"sha256:{BUNDLED[name].weights_sha256[:12]}"
    weights = [folder / gguf] if gguf else sorted(folder.glob("*.safetensors"))
    return "sha256:" + "+".join(sha256_of(path)[:12] for path in weights)
