"""Draw synthetic chest CT slices: the embedded sample, which needs no patient, no licence and no download.

How a slice is drawn
    1. A pseudo-patient is a handful of random numbers: habitus, cavity shape, level of the slices, vessel trees and
       lesions. All of it lives in three dimensions, so the three slices of a patient are neighbouring cuts of one body.
    2. Organs are painted as soft-edged shapes in Hounsfield units (HU), from outside in: air, table, fat, muscle,
       ribs, mediastinum with heart and great vessels, lungs, airways, spine, sternum.
    3. Vessels are 3-D trees grown from each hilum; the part that lies within the slice thickness is projected.
    4. Lesions replace a share of the air in the lung, so vessels stay visible through a hazy one. COVID: ground-glass
       opacities, several, soft-edged, mostly peripheral and posterior. Non-COVID: a third each with clear lungs,
       nodules, or a pleural effusion that layers along the posterior wall.
    5. Correlated noise, then a very wide window (level about -375 HU, width about 3100 HU) maps HU to 8-bit grey.

Whatever is not a lesion is drawn alike for both classes. Image sizes, colour modes and windows are the same lists in
both, in a different order, so none of them tells the classes apart.

Why it is drawn so: the sample should show in small what the study's data shows
    - Patients differ much in shape, position and vessels, and the slices of a patient differ little. Looking up the
      most similar thumbnail therefore finds the same patient where there is one, and says little about a new patient.
    - Every lung has a faint fine grain. Histograms of oriented gradients are normalised locally, so they see the grain
      as well as a lesion's edge, and they lose what tells a hazy lung from a clear one.
    - The window is so wide that contrasts are weak. Features of an untrained backbone grow in proportion to contrast,
      so the head is still underfitted when its epochs end, and fine-tuning has something to add.

Coordinates: x (image right), y (posterior, image down) and z (caudal), in half-widths of the body, about 17 cm; the
origin is the body's centre. Radiological convention: the patient's left, with the heart, is on the image's right.
"""

import argparse
import csv
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ctscan.core.files import publish
from ctscan.core.seeds import generator

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from scipy.spatial.distance import cdist

SAMPLE_SEED = 2020
PATIENTS = 40  # of each class
SLICES = 3  # of each patient
MODES = ("L", "L", "L", "L", "RGB", "RGBA")  # in these shares; colour triples the bytes that a grey image needs

Field = NDArray[np.floating[Any]]
Mask = NDArray[np.bool_]
Grey = NDArray[np.uint8]

_AIR, _FAT, _MUSCLE, _BLOOD, _SPONGIOSA, _CORTEX = -1000.0, -105.0, 45.0, 40.0, 210.0, 560.0
_SPACING = 0.035  # between neighbouring slices
_REACH = 3 * _SPACING  # from the first slice on: where lesions have their centres
_THICKNESS = 0.03  # of a slice: the standard deviation of its profile


@dataclass(frozen=True)
class _Frame:
    """What the image shows of the body, and how: nothing of it depends on the class."""

    height: int
    width: int
    mode: str
    window: tuple[float, float]  # HU shown black, HU shown white


@dataclass(frozen=True)
class _Body:
    depth: float  # half the antero-posterior diameter
    squareness: float  # exponent of the superellipse
    fat: float  # thickness under the skin
    zoom: float
    shift: tuple[float, float]
    level: float  # z of the first slice: 0 at the aortic arch, 0.9 at the dome of the liver
    cavity: list[list[float]]  # amplitudes of the harmonics that deform the thoracic cage
    heart: float
    aorta: float
    spine: float
    ribs: list[float]  # angles
    parenchyma: float  # HU
    dependent: float  # HU that parenchyma gains from front to back: blood and collapse follow gravity
    noise: float  # HU
    table: bool
    roll: float  # radians that the patient lies turned by
    grain: float  # HU, standard deviation of the fine texture of the parenchyma


@dataclass(frozen=True)
class _Lesion:
    centre: tuple[float, float, float]
    radii: tuple[float, float, float]
    tilt: float
    opacity: float  # share of the air that it replaces
    edge: float  # width of the rim over which it fades, in radii


def draw_slice(patient: int, position: int, positive: bool, seed: int) -> tuple[Grey, Mask]:
    """One slice of one pseudo-patient, a pure function of its arguments.

    Args:
        patient: 1 to `PATIENTS`, counted within its class.
        position: 1 to `SLICES`, from cranial to caudal.
        positive: whether the patient has COVID.
        seed: of the whole sample.

    Returns:
        The slice as grey levels (H, W), and its lungs (H, W): pleural cavities, with whatever lies in them.
    """
    names = ("phantom", "covid" if positive else "non-covid", patient)
    frame = _frames(positive, seed)[patient - 1]
    body = _draw_body(generator(seed, *names, "body"))
    z = body.level + _SPACING * (position - 1)
    x, y = _grid(frame, body)
    texture = _Waves(generator(seed, *names, "texture"))

    hu, lung_distance = _paint_chest(body, x, y, z, texture)
    pixel = _pixel(x, y)
    rim = 0.008 + pixel  # the wall's edge is soft: this far out it still holds some air
    lungs = lung_distance < rim
    vessels = _project_vessels(body, z, x, y, generator(seed, *names, "vessels"))
    hu += np.where(lungs, vessels, 0) * (_BLOOD - hu)
    hu = ndimage.gaussian_filter(hu, 0.6)

    opacity = _lesion_opacity(body, patient, positive, x, y, z, texture, seed)
    opacity *= np.clip((rim - lung_distance) / pixel, 0, 1)
    hu += opacity * np.maximum(_BLOOD - hu, 0)

    grain = generator(seed, *names, "noise", position).standard_normal(hu.shape, np.float32)
    grain = ndimage.gaussian_filter(grain, 1.2)
    hu += body.noise * grain / grain.std()
    black, white = frame.window
    grey = np.clip(255 * (hu - black) / (white - black), 0, 255)
    return np.rint(grey).astype(np.uint8), lungs


def draw_sample(folder: Path, seed: int) -> None:
    """Write the sample into `folder`: 240 PNGs named as the real dataset's, and `groups.csv` (path, group).

    Patient k of a class has the numbers 3k-2 to 3k. The same seed and library versions give the same bytes.
    """
    rows = []
    for positive, name, stem in ((True, "COVID", "Covid"), (False, "non-COVID", "Non-Covid")):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for patient, frame in enumerate(_frames(positive, seed), start=1):
            for position in range(1, SLICES + 1):
                grey, _ = draw_slice(patient, position, positive, seed)
                path = f"{name}/{stem} ({SLICES * (patient - 1) + position}).png"
                Image.fromarray(grey).convert(frame.mode).save(folder / path, compress_level=9)
                rows.append((path, f"{stem.lower()}-{patient:02d}"))
    with (folder / "groups.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([("path", "group"), *rows])


def _frames(positive: bool, seed: int) -> list[_Frame]:
    """The frames of a class's patients: the same sizes, modes and windows in both classes, each in its own order."""
    draw = generator(seed, "frames")
    widths = (160 + 60 * np.linspace(0, 1, PATIENTS) ** 2).round().astype(int)
    heights = (widths * draw.uniform(0.66, 0.82, PATIENTS)).round().astype(int)
    levels, spans = draw.uniform(-400, -350, PATIENTS), draw.uniform(3000, 3200, PATIENTS)
    shuffle = generator(seed, "frames", "covid" if positive else "non-covid")
    sizes, modes, windows = (shuffle.permutation(PATIENTS) for _ in range(3))
    return [
        _Frame(
            height=int(heights[size]),
            width=int(widths[size]),
            mode=MODES[mode % len(MODES)],
            window=(levels[window] - spans[window] / 2, levels[window] + spans[window] / 2),
        )
        for size, mode, window in zip(sizes, modes, windows, strict=True)
    ]


def _draw_body(draw: np.random.Generator) -> _Body:
    return _Body(
        depth=draw.uniform(0.61, 0.78),
        squareness=draw.uniform(2.0, 3.0),
        fat=draw.uniform(0.035, 0.11),
        zoom=draw.uniform(0.83, 1.01),
        shift=(draw.uniform(-0.06, 0.06), draw.uniform(-0.06, 0.05)),
        level=draw.uniform(0.08, 0.65),
        cavity=draw.normal(0, 0.02, (4, 2)).tolist(),
        heart=draw.uniform(0.88, 1.1),
        aorta=draw.uniform(0.055, 0.075),
        spine=draw.uniform(0.9, 1.12),
        ribs=draw.uniform(0, 1, 2).tolist(),
        parenchyma=draw.uniform(-885, -825),
        dependent=draw.uniform(30, 120),
        noise=draw.uniform(5, 8),
        table=bool(draw.random() < 0.6),
        roll=draw.uniform(-0.1, 0.1),
        grain=draw.uniform(25, 40),
    )


class _Waves:
    """Smooth random texture in space: a sum of plane waves, of unit variance."""

    def __init__(self, draw: np.random.Generator, count: int = 24) -> None:
        self._vectors = draw.standard_normal((count, 3))
        self._phases = draw.uniform(0, 2 * np.pi, count)

    def __call__(self, x: Field, y: Field, z: float, frequency: float) -> Field:
        """The texture on a regular grid; `frequency` in radians per unit of length.

        A turned grid is read along its first row and column, so a texture does not turn with the patient.
        """
        a, b, c = frequency * self._vectors.T
        # cos(p + q) = cos p cos q - sin p sin q: on a grid the sum over the waves is a matrix product.
        # Not `@`: its rounding, and under load its time, hang on how many threads BLAS takes.
        p, q = np.outer(y[:, 0], b) + c * z + self._phases, np.outer(a, x[0])
        rows, columns = np.hstack([np.cos(p), -np.sin(p)]), np.vstack([np.cos(q), np.sin(q)])
        waves = np.einsum("ik,kj->ij", rows.astype(x.dtype), columns.astype(x.dtype))
        return np.asarray(waves * float(np.sqrt(2 / len(self._phases))))


def _grid(frame: _Frame, body: _Body) -> tuple[Field, Field]:
    """x and y of the pixels (H, W). The unturned body fills the width or the height, whichever it reaches first."""
    half_width = body.zoom * min(frame.width / 2, frame.height / 2 / (body.depth * 1.04))
    rows, columns = np.mgrid[: frame.height, : frame.width].astype(np.float32)
    x = (columns - (frame.width - 1) / 2) / half_width - body.shift[0]
    y = (rows - (frame.height - 1) / 2) / half_width - body.shift[1]
    return _turn(x, y, body.roll)


def _turn(x: Field, y: Field, angle: float) -> tuple[Field, Field]:
    cosine, sine = math.cos(angle), math.sin(angle)
    return x * cosine - y * sine, y * cosine + x * sine


def _pixel(x: Field, y: Field) -> float:
    """The side of a pixel of the grid."""
    return math.hypot(x[0, 1] - x[0, 0], y[0, 1] - y[0, 0])


def _ellipse(x: Field, y: Field, centre: tuple[float, float], radii: tuple[float, float], tilt: float = 0) -> Field:
    """Roughly the signed distance to an ellipse, negative inside. A radius below 0.02 makes it vanish."""
    if min(radii) < 0.02:
        return np.ones_like(x)
    dx, dy = x - centre[0], y - centre[1]
    along, across = dx * math.cos(tilt) + dy * math.sin(tilt), dy * math.cos(tilt) - dx * math.sin(tilt)
    return np.asarray((np.hypot(along / radii[0], across / radii[1]) - 1) * min(radii))


def _join(*distances: Field, rounding: float = 0.03) -> Field:
    """The distance to a union of shapes, with the notches between them filled."""
    # Capped, so that single precision doesn't underflow to log(0) far from every shape.
    closeness = [np.exp(-np.minimum(distance / rounding, 80)) for distance in distances]
    return np.asarray(-rounding * np.log(np.sum(closeness, axis=0)))


def _paint(hu: Field, distance: Field, value: float | Field, soft: float = 0.015) -> None:
    """Fill a shape with `value` in place; its edge is `soft` wide."""
    hu += np.clip(0.5 - distance / soft, 0, 1) * (value - hu)


def _ramp(value: float, start: float, stop: float) -> float:
    """0 up to `start`, 1 from `stop` on, smooth between."""
    t = min(max((value - start) / (stop - start), 0.0), 1.0)
    return t * t * (3 - 2 * t)


def _cage(body: _Body, x: Field, y: Field, z: float) -> tuple[Field, Field]:
    """Polar coordinates of the thoracic cavity: radius, 1 on its wall, and angle, 0 towards image right."""
    top, bottom = -(body.depth - body.fat - 0.09), body.depth - body.fat - 0.15
    centre, half_depth = (top + bottom) / 2, (bottom - top) / 2
    half_width = (1 - body.fat - 0.11) * (0.8 + 0.2 * _ramp(z, -0.2, 0.5))
    dx, dy = x / half_width, (y - centre) / half_depth
    angle = np.arctan2(dy, dx)
    radius = (np.abs(dx) ** 2.3 + np.abs(dy) ** 2.3) ** (1 / 2.3)
    wobble = np.ones_like(x)
    for order, (cosine, sine) in enumerate(body.cavity, start=2):
        wobble += cosine * np.cos(order * angle) + sine * np.sin(order * angle)
    return radius / wobble, angle


def _paint_chest(body: _Body, x: Field, y: Field, z: float, texture: _Waves) -> tuple[Field, Field]:
    """A healthy chest without lung vessels, in HU, and the distance to its lungs, negative inside."""
    hu = np.full_like(x, _AIR)
    if body.table:
        bed = np.hypot(x, y + 1.6) - (1.6 + body.depth + 0.07)
        _paint(hu, np.maximum(np.abs(bed) - 0.012, np.abs(x) - 0.8), -450)

    norm = (np.abs(x) ** body.squareness + np.abs(y / body.depth) ** body.squareness) ** (1 / body.squareness)
    skin = (norm - 1) * body.depth
    radius, angle = _cage(body, x, y, z)
    wall = (radius - 1) * 0.55
    streaks = texture(x, y, z, 14)
    _paint(hu, skin, 0, 0.02)
    _paint(hu, skin + 0.018, _FAT + 8 * streaks)
    flesh = _join(skin + body.fat + 0.012 * texture(x, y, z, 5), wall - 0.05)
    _paint(hu, flesh, _MUSCLE - 70 * np.clip(streaks - 1.1, 0, 1), 0.03)

    # Ribs slope down towards the front, so a slice cuts several of them, each over a short arc.
    beside = np.where(np.abs(x) > 0.2, wall, 1)
    for side, start in zip((0, np.pi), body.ribs, strict=True):
        for step in range(-2, 4):
            middle = side + (0.62 * (step + start) + 0.9 * z - 0.75) * (1 if side == 0 else -1)
            along = (angle - middle + np.pi) % (2 * np.pi) - np.pi
            oblique = beside - 0.045 - 0.08 * math.sin(5 * step) * along
            rib = (np.hypot(oblique / 0.025, along / 0.16) - 1) * 0.025
            _paint(hu, rib, _CORTEX)
            _paint(hu, rib + 0.014, _SPONGIOSA)

    back = body.depth - body.fat - 0.26 * body.spine
    mediastinum, organs = _mediastinum(body, x, y, z, back)
    lung_distance = np.maximum(wall, -mediastinum)
    depth = (y + body.depth) / (2 * body.depth)
    air = body.parenchyma + body.dependent * depth**2 + 14 * texture(x, y, z, 9) + body.grain * texture(x, y, z, 70)
    _paint(hu, wall, _FAT)
    for distance, value in organs:
        _paint(hu, np.maximum(distance, wall), value, 0.02)
    _paint(hu, lung_distance, air, 0.02)
    _paint_airways(hu, x, y, z)
    _paint_spine(hu, x, y, back, body.spine)
    sternum = _ellipse(x, y, (0, -(body.depth - body.fat - 0.045)), (0.11, 0.034))
    _paint(hu, sternum, _CORTEX)
    _paint(hu, sternum + 0.014, _SPONGIOSA)
    return hu, lung_distance


def _mediastinum(body: _Body, x: Field, y: Field, z: float, back: float) -> tuple[Field, list[tuple[Field, float]]]:
    """The distance to all that parts the lungs, and its organs as (distance, HU)."""
    low = _ramp(z, 0.3, 0.75)
    hilum = math.exp(-(((z - 0.42) / 0.16) ** 2))
    front = -0.45 * body.depth
    heart_size = body.heart * (0.1 + 0.16 * low)
    heart = _ellipse(x, y, (0.05 + 0.1 * low, front + 0.1 * low + 0.08), (1.25 * heart_size, 0.92 * heart_size), 0.5)
    ascending = _ellipse(x, y, (-0.05, front + 0.15), (body.aorta * 1.15, body.aorta * 1.1))
    descending = _ellipse(x, y, (0.17, back - 0.1), (body.aorta, body.aorta))
    cava = _ellipse(x, y, (-0.15, front + 0.2), (0.045, 0.05))
    trunk = _ellipse(x, y, (0.09, front + 0.2), (0.05 + 0.07 * hilum, 0.05), 0.7)
    gullet = _ellipse(x, y, (0.03, back - 0.16), (0.035, 0.025))
    arch = _ellipse(x, y, (0.06, front + 0.28), (0.2 * (1 - _ramp(z, 0.02, 0.14)), 0.07), 0.9)
    hila = [_ellipse(x, y, (side * 0.2, -0.02), (0.09 * hilum, 0.08 * hilum)) for side in (-1, 1)]
    dome = 0.42 * _ramp(z, 0.68, 1.1)
    liver = _ellipse(x, y, (-0.42, 0), (dome, 0.8 * dome))

    core = _ellipse(x, y, (0, (front + back) / 2), (0.13, (back - front) / 2 + 0.1))
    septum = np.maximum(np.abs(x - 0.01) - 0.022, y - back)
    vertebra = _ellipse(x, y, (0, back + 0.05), (0.17 * body.spine, 0.2 * body.spine))
    parts = (heart, ascending, descending, cava, trunk, arch, *hila, liver)
    distance = _join(core, septum, vertebra, *(part - 0.012 for part in parts))
    values = (_BLOOD,) * 8 + (62.0,)
    organs = [*zip(parts, values, strict=True), (gullet, 20.0), (vertebra, _MUSCLE)]
    return distance, organs


def _paint_airways(hu: Field, x: Field, y: Field, z: float) -> None:
    """The trachea, which parts into two main bronchi and leaves towards the hila."""
    apart = 0.16 * _ramp(z, 0.2, 0.5)
    size = 0.055 - 0.036 * _ramp(z, 0.2, 0.56)
    middle, radii = 0.04 + 0.1 * apart, (size * (1 + 2 * apart), size)
    tubes = np.minimum(*(_ellipse(x, y, (side * apart - 0.015, middle), radii) for side in (-1, 1)))
    _paint(hu, tubes - 0.014, 10, 0.02)
    _paint(hu, tubes, _AIR, 0.02)


def _paint_spine(hu: Field, x: Field, y: Field, back: float, size: float) -> None:
    body = _ellipse(x, y, (0, back), (0.115 * size, 0.095 * size))
    canal = _ellipse(x, y, (0, back + 0.135 * size), (0.055 * size, 0.045 * size))
    lamina = np.abs(canal) - 0.022
    process = _ellipse(x, y, (0, back + 0.24 * size), (0.022, 0.075 * size))
    wings = _ellipse(np.abs(x), y, (0.15 * size, back + 0.12 * size), (0.1 * size, 0.028), 0.35)
    bone = _join(lamina, process, wings, rounding=0.008)
    _paint(hu, bone, 420)
    _paint(hu, body, _CORTEX)
    _paint(hu, body + 0.02, _SPONGIOSA)
    _paint(hu, canal, 25)


def _project_vessels(body: _Body, z: float, x: Field, y: Field, draw: np.random.Generator, leaves: int = 360) -> Field:
    """How much of each pixel is vessel (H, W), 0 to 1, within the thickness of the slice."""
    pixel = _pixel(x, y)
    left, top = (float(value[0, 0]) for value in _turn(x, y, -body.roll))
    middle = body.level + _REACH / 2
    blurred = np.zeros_like(x)
    for side in (-1, 1):
        points, parents, radii = _grow_tree(body, side, middle, leaves, draw)
        sigmas = np.maximum(radii, 0.5 * pixel)
        edges = np.geomspace(sigmas.min(), sigmas.max() * 1.001, 6)
        bins = np.digitize(sigmas, edges)
        for index in np.unique(bins):
            children = np.flatnonzero(bins == index)
            children = children[children > 0]
            if not len(children):
                continue
            steps = (np.arange(40) + 0.5) / 40
            ends, starts = points[children, None], points[parents[children], None]
            path = (starts + steps[None, :, None] * (ends - starts)).reshape(-1, 3)
            length = np.repeat(np.linalg.norm(ends - starts, axis=-1), 40, axis=1).ravel() / 40
            thickness = np.hypot(_THICKNESS, radii[children].mean())
            weight = length / pixel * np.exp(-0.5 * ((path[:, 2] - z) / thickness) ** 2)
            across, down = _turn(path[:, 0], path[:, 1], -body.roll)
            columns, rows = (across - left) / pixel, (down - top) / pixel
            seen = (np.abs(columns - (x.shape[1] - 1) / 2) < x.shape[1] / 2) & (weight > 1e-4)
            seen &= np.abs(rows - (x.shape[0] - 1) / 2) < x.shape[0] / 2
            cells = np.rint(rows[seen]).astype(int) * x.shape[1] + np.rint(columns[seen]).astype(int)
            splat = np.bincount(cells, weight[seen], minlength=x.size).reshape(x.shape)
            sigma = float(np.mean(sigmas[children])) / pixel
            # A straight vessel in the plane then has the value 1 on its axis, or less if it is thinner than a pixel.
            thin = min(1.0, float(np.mean(radii[children])) / (0.5 * pixel))
            blurred += thin * np.sqrt(2 * np.pi) * sigma * ndimage.gaussian_filter(splat, sigma)
    return np.asarray(np.clip(blurred, 0, 1))


def _grow_tree(
    body: _Body, side: int, middle: float, leaves: int, draw: np.random.Generator
) -> tuple[Field, NDArray[np.int64], Field]:
    """A vessel tree in one lung: points (N, 3), the parent of each, the radius of the branch that ends there (N,).

    Points are joined from the hilum outwards, each to the earlier point that makes its way to the hilum short; the
    cube of a radius grows with the number of branches beyond (Murray's law).
    """
    cloud = draw.uniform((0.08, -body.depth, middle - 0.4), (0.95, body.depth, middle + 0.4), (4 * leaves, 3))
    cloud[:, 0] *= side
    radius, _ = _cage(body, cloud[:, 0], cloud[:, 1], middle)
    hilum = np.array([side * 0.2, 0.0, middle])
    cloud = cloud[radius < 0.95][:leaves]
    cloud = cloud[np.argsort(np.linalg.norm(cloud - hilum, axis=1))]
    points = np.vstack([hilum, cloud])
    parents = np.zeros(len(points), dtype=np.int64)
    route = np.zeros(len(points))
    hops = cdist(points, points)
    for child in range(1, len(points)):
        hop = hops[child, :child]
        parents[child] = np.argmin(hop + 0.5 * route[:child])
        route[child] = route[parents[child]] + hop[parents[child]]
    beyond = np.ones(len(points))
    for child in range(len(points) - 1, 0, -1):
        beyond[parents[child]] += beyond[child]
    return points, parents, 0.0045 * beyond ** (1 / 3)


def _lesion_opacity(
    body: _Body, patient: int, positive: bool, x: Field, y: Field, z: float, texture: _Waves, seed: int
) -> Field:
    """The share of air that lesions replace (H, W), 0 to 1; lungs or not, the caller cuts it to them."""
    draw = generator(seed, "phantom", "covid" if positive else "non-covid", patient, "lesions")
    if positive:
        return _blend(_ground_glass(body, draw), x, y, z, texture)
    kind = generator(seed, "findings").permutation(PATIENTS)[patient - 1] % 3
    if kind == 0:
        return np.zeros_like(x)
    if kind == 1:
        return _blend(_nodules(body, draw), x, y, z, texture)
    return _effusion(body, x, y, z, draw)


def _blend(lesions: list[_Lesion], x: Field, y: Field, z: float, texture: _Waves) -> Field:
    """Overlapping lesions leave the air that each of them leaves."""
    left = np.ones_like(x)
    ragged, mottled = texture(x, y, z, 8), texture(x, y, z, 26)
    for lesion in lesions:
        dz = (z - lesion.centre[2]) / lesion.radii[2]
        flat = _ellipse(x, y, lesion.centre[:2], lesion.radii[:2], lesion.tilt) / min(lesion.radii[:2]) + 1
        reach = np.hypot(flat, dz) + 0.2 * lesion.edge * ragged
        fill = np.clip((1 + lesion.edge / 2 - reach) / lesion.edge, 0, 1)
        left *= 1 - np.clip(lesion.opacity * fill * fill * (3 - 2 * fill) * (1 + 0.2 * lesion.edge * mottled), 0, 1)
    return 1 - left


def _on_wall(body: _Body, angle: float, depth: float, z: float) -> tuple[float, float]:
    """The point at an angle of the cage (image right is 0, the back is pi / 2), `depth` of the way in from its wall."""
    reach = np.linspace(0, 1.2, 400)
    radius, _ = _cage(body, reach * np.cos(angle), reach * np.sin(angle), z)
    distance = float(np.interp(1 - depth, radius, reach))
    return distance * np.cos(angle), distance * np.sin(angle)


def _ground_glass(body: _Body, draw: np.random.Generator) -> list[_Lesion]:
    """Between one faint patch and many dense ones: extent and strength belong to the patient."""
    strength = draw.uniform(0.22, 0.45)
    lesions = []
    one_sided = draw.random() < 0.2
    sides = [int(draw.integers(2))] if one_sided else [0, 1]
    for side in sides:
        for _ in range(int(draw.integers(2, 6))):
            slope = np.clip(draw.normal(0.45, 0.45), -0.6, 1.15)
            angle = slope if side == 0 else np.pi - slope
            z = body.level + draw.uniform(-0.05, _REACH + 0.05)
            x, y = _on_wall(body, angle, abs(draw.normal(0.05, 0.12)), z)
            size = draw.uniform(0.11, 0.22)
            stretch = draw.uniform(1, 1.7)
            lesions.append(
                _Lesion(
                    centre=(x, y, z),
                    radii=(size, size * stretch, draw.uniform(0.1, 0.2)),
                    tilt=angle,
                    opacity=float(np.clip(strength * draw.uniform(0.75, 1.3), 0.1, 0.6)),
                    edge=draw.uniform(0.6, 1.0),
                )
            )
    return lesions


def _nodules(body: _Body, draw: np.random.Generator) -> list[_Lesion]:
    lesions = []
    for _ in range(int(draw.integers(1, 5))):
        angle = draw.uniform(-0.9, 0.9) + (0 if draw.random() < 0.5 else np.pi)
        z = body.level + draw.uniform(0, _REACH)
        x, y = _on_wall(body, angle, draw.uniform(0.1, 0.45), z)
        size = draw.uniform(0.025, 0.06)
        lesions.append(_Lesion((x, y, z), (size, size * draw.uniform(0.9, 1.15), size + 0.03), angle, 0.92, 0.3))
    return lesions


def _effusion(body: _Body, x: Field, y: Field, z: float, draw: np.random.Generator) -> Field:
    """Fluid behind one lung or both: the lung floats forward, which leaves a crescent along the posterior wall."""
    fluid = np.zeros_like(x)
    sides = [(-1,), (1,), (-1, 1)][int(draw.integers(3))]
    for side in sides:
        rise = draw.uniform(0.08, 0.18) + 0.4 * (z - body.level)
        radius, _ = _cage(body, x * 1.04, y + rise, z)
        behind = (side * x > 0) & (y > -0.25)
        fluid = np.maximum(fluid, np.where(behind, np.clip(0.5 + (radius - 1) * 0.55 / 0.025, 0, 1), 0))
    return 0.98 * fluid


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Takes none: the sample is fixed data, whose seed is a constant and no parameter of the experiment."""


def run(arguments: argparse.Namespace) -> int:
    """Draw the embedded sample into sample/."""
    with publish(Path("sample")) as folder:
        draw_sample(folder, SAMPLE_SEED)
    return 0
