"""FRESCO-guided attention (paper, section 3.2) as a diffusers attention processor.

It replaces the self-attention of up blocks 2 and 3 only, inside the ``with`` block of
`guided_attention`. Projections are called as the layer's modules, so LoRA layers inside them take
part, and every other processor of the model (IP-Adapter's on the cross-attention) stays in place.

A batch under classifier-free guidance holds the frames once per half: [uncond 0..N-1, cond 0..N-1].
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn

from fresco.blocks import self_attentions
from fresco.callbacks import never_stop
from fresco.correspondence import Correspondence
from fresco.errors import InvalidInput
from fresco.frames import Frames, stack
from fresco.paths import Paths, link, unique_tokens

#: Image pixels per token of the layers that may be guided. Layers of other sizes fall back to the
#: first frame's keys and values, and to no paths.
UNIQUE_SCALES, PATH_SCALES = (8, 16, 32), (8, 16)


@dataclass(slots=True)
class AttentionGuidance:
    """What guides the attention of one batch; the three switches may change between steps.

    frames: N
    unique: token count → (N, tokens) bool, the tokens that all frames share as keys and values
    paths: token count → the paths of that size
    reference: layer name → (2N, tokens, D), the layer's input for the input frames
        (`fresco.reference.record`); only read while `spatial` is on, may be cleared afterwards
    outsiders: frames behind the N in each half that belong to no path, and whose tokens all others
        share as keys and values; they themselves attend to themselves (a shared style across a cut)
    half: which half of `reference` belongs to the batch, when the model is given one half at a time
    spatial, cross_frame, temporal: the three kinds of guidance
    spatial_bias: added to the diagonal of the spatial map, before the softmax
    spatial_scale, temporal_scale: factors on the usual 1/sqrt(d); below 1 they flatten the maps
    on_attention: called before each of the three; may raise to stop

    Raises:
        InvalidInput: masks or paths of other frames, or without a token.
    """

    frames: int
    unique: Mapping[int, Tensor] = field(default_factory=dict[int, Tensor])
    paths: Mapping[int, Paths] = field(default_factory=dict[int, Paths])
    reference: dict[str, Tensor] = field(default_factory=dict[str, Tensor])
    outsiders: int = 0
    half: int | None = None
    spatial: bool = True
    cross_frame: bool = True
    temporal: bool = True
    spatial_bias: float = 0.0
    spatial_scale: float = 0.2
    temporal_scale: float = 0.2
    on_attention: Callable[[], None] = never_stop
    _on_device: dict[tuple[str, int, torch.device], Any] = field(
        default_factory=dict[tuple[str, int, torch.device], Any], repr=False
    )

    def __post_init__(self) -> None:
        if self.frames < 1:
            raise InvalidInput(f"guidance for {self.frames} frames; there must be at least one.")
        for tokens, mask in self.unique.items():
            if mask.shape != (self.frames, tokens) or not bool(mask.any()):
                raise InvalidInput(
                    f"the mask of unique tokens has shape {tuple(mask.shape)} or is empty; "
                    f"expected ({self.frames}, {tokens}) with at least one token."
                )
        for tokens, paths in self.paths.items():
            if paths.order.shape != (self.frames, tokens):
                raise InvalidInput(
                    f"the paths have shape {tuple(paths.order.shape)}; "
                    f"expected ({self.frames}, {tokens})."
                )

    def shared_rows(self, tokens: int, device: torch.device) -> Tensor | None:
        """Rows of all frames laid end to end that are shared; found once, for it waits for them."""
        mask = self.unique.get(tokens)
        if mask is None:
            return None
        key = ("rows", tokens, device)
        if key not in self._on_device:
            self._on_device[key] = mask.flatten().nonzero().squeeze(1).to(device)
        return self._on_device[key]

    def paths_of(self, tokens: int, device: torch.device) -> Paths | None:
        """The paths of this token count, brought to `device` once."""
        paths = self.paths.get(tokens)
        if paths is None:
            return None
        key = ("paths", tokens, device)
        if key not in self._on_device:
            self._on_device[key] = paths.to(device)
        return self._on_device[key]

    @classmethod
    def of(
        cls,
        frames: Frames,
        correspondence: Correspondence,
        reference: dict[str, Tensor] | None = None,
    ) -> AttentionGuidance:
        """Derive the guidance of a batch from its frames (N, 3, H, W) and correspondence.

        Raises:
            InvalidInput: frames and correspondence do not belong together.
        """
        batch = stack(frames)
        backward, occluded = correspondence.backward, correspondence.occ_backward
        paths = [link(backward, occluded, batch, scale) for scale in _fitting(batch, PATH_SCALES)]
        unique = [unique_tokens(occluded, scale) for scale in _fitting(batch, UNIQUE_SCALES)]
        return cls(
            frames=len(batch),
            unique={mask.shape[1]: mask for mask in unique},
            paths={path.order.shape[1]: path for path in paths},
            reference={} if reference is None else reference,
            spatial=reference is not None,
        )


class FrescoAttnProcessor:
    """Self-attention guided by the clip's correspondence; with all three off, plain attention.

    guidance: shared by all layers of the model
    layer: this layer's key in ``guidance.reference``
    """

    def __init__(self, guidance: AttentionGuidance, layer: str = "") -> None:
        self.guidance = guidance
        self.layer = layer

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,  # noqa: ARG002 (the signature is diffusers')
    ) -> Tensor:
        """Attend, in the paper's order: spatial-guided, cross-frame, temporal-guided.

        hidden_states: (2N, tokens, D)

        Raises:
            InvalidInput: a batch that does not hold the guidance's frames, no stored features
                while `spatial` is on, or an attention mask.
        """
        if encoder_hidden_states is not None:
            # Put on a cross-attention layer by mistake it must not mix text with frames.
            return _plain_attention(attn, hidden_states, encoder_hidden_states, attention_mask)
        self._check(hidden_states, attention_mask)
        projections = (attn.to_q, attn.to_k, attn.to_v)
        qkv = [_heads(attn, projection, hidden_states) for projection in projections]
        if not self.guidance.outsiders:
            return _project_out(attn, self._guided(attn, *qkv))
        inside, outside = zip(*(self._part(x) for x in qkv), strict=True)
        halves = [
            self._guided(attn, inside[0], inside[1], inside[2], outside[1], outside[2]),
            _attend(*outside),
        ]
        halves = [x.unflatten(0, (len(hidden_states) // self._per_half, -1)) for x in halves]
        return _project_out(attn, torch.cat(halves, dim=1).flatten(0, 1))

    @property
    def _per_half(self) -> int:
        return self.guidance.frames + self.guidance.outsiders

    def _part(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Part a batch into the frames and the outsiders of all halves."""
        halves = x.unflatten(0, (-1, self._per_half))
        frames = self.guidance.frames
        return halves[:, :frames].flatten(0, 1), halves[:, frames:].flatten(0, 1)

    def _guided(
        self,
        attn: Attention,
        raw_query: Tensor,
        raw_key: Tensor,
        value: Tensor,
        outside_key: Tensor | None = None,
        outside_value: Tensor | None = None,
    ) -> Tensor:
        """All on (2N, tokens, heads, d); the outsiders' keys and values on theirs."""
        guidance = self.guidance
        guidance.on_attention()
        query = self._spatial(attn, raw_query) if guidance.spatial else raw_query
        guidance.on_attention()
        if guidance.cross_frame:
            key = self._shared(raw_key, outside_key)
            out = self._cross_frame(query, key, self._shared(value, outside_value))
        else:
            out = _attend(query, raw_key, value)
        guidance.on_attention()
        return self._temporal(raw_query, raw_key, out) if guidance.temporal else out

    def _spatial(self, attn: Attention, query: Tensor) -> Tensor:
        """Smooth the query by the self-similarity of the input frame's features."""
        guidance = self.guidance
        stored = guidance.reference.get(self.layer)
        if stored is not None and guidance.half is not None:
            stored = stored.unflatten(0, (-1, guidance.frames))[guidance.half]
        if stored is None:
            raise InvalidInput(
                f"spatial guidance is on but no features are stored for {self.layer or 'the layer'}"
                "; record them with fresco.reference.record, or switch it off."
            )
        if stored.shape[:2] != query.shape[:2]:
            raise InvalidInput(
                f"the features stored for {self.layer or 'the layer'} have shape "
                f"{tuple(stored.shape)}, the layer's batch is {tuple(query.shape[:2])}; "
                "record them at the size and guidance of this run."
            )
        stored = stored.to(query)
        diagonal = None
        if guidance.spatial_bias:
            eye = torch.eye(query.shape[1], device=query.device, dtype=query.dtype)
            diagonal = guidance.spatial_bias * eye
        return _attend(
            _heads(attn, attn.to_q, stored),
            _heads(attn, attn.to_k, stored),
            query,
            mask=diagonal,
            flatten=guidance.spatial_scale,
        )

    def _shared(self, x: Tensor, outside: Tensor | None) -> Tensor:
        """The tokens of (2N, tokens, heads, d) that all frames share: (2, shared, heads, d)."""
        frames = x.unflatten(0, (-1, self.guidance.frames))
        rows = self.guidance.shared_rows(x.shape[1], x.device)
        shared = frames[:, 0] if rows is None else frames.flatten(1, 2)[:, rows]
        if outside is None:
            return shared
        return torch.cat((shared, outside.unflatten(0, (len(shared), -1)).flatten(1, 2)), dim=1)

    def _cross_frame(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Let every frame attend to the tokens that all frames together show, each once.

        The frames' queries are laid end to end, so the shared keys and values exist once per half.
        """
        in_halves = query.unflatten(0, (-1, self.guidance.frames)).flatten(1, 2)
        return _attend(in_halves, key, value).reshape(query.shape)

    def _temporal(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Let every token attend over the frames along its path."""
        paths = self.guidance.paths_of(query.shape[1], query.device)
        if paths is None:
            return value
        along = [self._by_path(x, paths.order) for x in (query, key, value)]
        mask = paths.mask.repeat(len(along[0]) // len(paths.mask), 1, 1)[:, None]
        out = _attend(*along, mask=mask, flatten=self.guidance.temporal_scale)
        frames_first = out.unflatten(0, (-1, query.shape[1])).transpose(1, 2)
        return _reorder(frames_first, paths.inverse).flatten(0, 1)

    def _by_path(self, x: Tensor, order: Tensor) -> Tensor:
        """(2N, tokens, heads, d) → (2 * paths, N, heads, d)."""
        frames = x.unflatten(0, (-1, self.guidance.frames))
        return _reorder(frames, order).transpose(1, 2).flatten(0, 1)

    def _check(self, hidden_states: Tensor, attention_mask: Tensor | None) -> None:
        if attention_mask is not None:
            raise InvalidInput(
                "FRESCO-guided self-attention takes no attention mask; do not pass one."
            )
        if hidden_states.ndim != 3 or len(hidden_states) % self._per_half:
            raise InvalidInput(
                f"the layer got a batch of {tuple(hidden_states.shape)}, which does not hold "
                f"{self._per_half} frames per guidance half; "
                "translate the frames that the guidance was made for."
            )


@contextmanager
def guided_attention(
    unet: nn.Module, guidance: AttentionGuidance, blocks: Sequence[int] | None = None
) -> Generator[AttentionGuidance]:
    """Guide the self-attention of `unet`'s decoder `blocks` inside the ``with`` block.

    blocks: `fresco.blocks.guided_blocks` by default

    On leaving, however that happens, every layer has the processor back that it had before.

    Raises:
        UnsupportedModel: the model lacks these layers.
    """
    layers = self_attentions(unet, blocks)
    before = {name: layer.get_processor() for name, layer in layers.items()}
    try:
        for name, layer in layers.items():
            layer.set_processor(FrescoAttnProcessor(guidance, name))  # pyright: ignore[reportArgumentType]
        yield guidance
    finally:
        for name, layer in layers.items():
            layer.set_processor(before[name])  # pyright: ignore[reportArgumentType]


def _fitting(batch: Tensor, scales: Sequence[int]) -> list[int]:
    return [scale for scale in scales if min(batch.shape[-2:]) >= scale]


def _heads(attn: Attention, projection: Callable[[Tensor], Tensor] | None, x: Tensor) -> Tensor:
    """Project (B, tokens, D) by one of the layer's modules to (B, tokens, heads, d)."""
    assert projection is not None, "checked by fresco.blocks.self_attentions"
    return projection(x).unflatten(2, (attn.heads, -1))


def _attend(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None, flatten: float = 1.0
) -> Tensor:
    """softmax(flatten * q k^T / sqrt(d), masked) v on (B, tokens, heads, d)."""
    query, key, value = (x.transpose(1, 2) for x in (query, key, value))
    scale = flatten * query.shape[-1] ** -0.5
    out = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scale)
    return out.transpose(1, 2)


def _reorder(x: Tensor, order: Tensor) -> Tensor:
    """Take tokens `order` (N, tokens) of each frame of x (halves, N, tokens, heads, d)."""
    frame = torch.arange(len(order), device=order.device)[:, None]
    return x[:, frame, order]


def _plain_attention(
    attn: Attention, hidden_states: Tensor, text: Tensor, attention_mask: Tensor | None
) -> Tensor:
    query = _heads(attn, attn.to_q, hidden_states)
    key, value = _heads(attn, attn.to_k, text), _heads(attn, attn.to_v, text)
    if attention_mask is not None:
        attention_mask = attn.prepare_attention_mask(attention_mask, key.shape[1], len(query))
        attention_mask = attention_mask.unflatten(0, (len(query), attn.heads))
    return _project_out(attn, _attend(query, key, value, mask=attention_mask))


def _project_out(attn: Attention, x: Tensor) -> Tensor:
    x = x.flatten(2)
    for module in attn.to_out or ():
        x = module(x)
    return x
