"""servoL against speedL: `python -m bench.tracking` writes tracking.json and tracking.png.

Both follow the same targets through the same jerk-limited follower on the emulated controller, each from
a process of its own: servoL plain, and with set-points sent ahead by its lag; speedL as the set-points'
velocity plus a pull towards them from the measured pose. The last row is the driver as it is
(rt.robot.ur). Targets come at the loop's rate with what happens to a real loop: late cycles, and now
and then a stall. What counts is the arm's true motion, from the emulator's log: lag and error behind
the set-points, lag behind the targets, jerk; and how far the arm runs on when the sender is killed.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro
from numpy.typing import NDArray
from rich import box
from rich.console import Console
from rich.table import Table

from bench.cycle import background_load
from rt.clock import Clock, real_time
from rt.files import output_folder, write_figure, write_json
from rt.progress import progress
from rt.robot import RobotError
from rt.robot.emulator import Emulator, start_emulator
from rt.robot.rotation_vector import difference, pose_vector, rotation, transform

Array = NDArray[np.float64]
METHODS = ("servoL", "servoL, ahead", "speedL", "driver")
START = (0.45, -0.13, 0.35, math.pi, 0.0, 0.0)
_SETTLED_S = 1.0
_PULL_PER_S = 5.0
"""speedL closes the loop over the measured pose with this gain: more oscillates with the arm's lag."""


@dataclass(frozen=True)
class Config:
    """Compare servoL with speedL for streaming, and measure the driver, on the emulated arm.

    Example: python -m bench.tracking --load 0 2
    """

    seconds: float = 12.0
    """Of motion for each measurement [s]."""
    load: tuple[int, ...] = (0, 2)
    """Busy processes beside, one series for each."""
    model: Literal["e", "cb3"] = "e"
    """Controller: e-Series at 500 Hz, or CB3 at 125 Hz."""
    rate: float = 30.0
    """The loop's rate, at which targets come [Hz]."""
    address: str = "127.0.0.71"
    """Where the emulator listens."""
    seed: int = 0
    """Of the late cycles."""
    out: Path | None = None
    """Folder for tracking.json and tracking.png. Default: runs/tracking/<time>/."""

    def __post_init__(self) -> None:
        if not 3 <= self.seconds <= 100:
            raise ValueError(f"seconds = {self.seconds} must be from 3 to 100")


@dataclass(frozen=True)
class Record:
    """What a sender knows of its own: times on time.monotonic_ns."""

    target_ns: NDArray[np.int64]
    targets: Array
    """(N, 6) poses."""
    sent_ns: NDArray[np.int64]
    set_points: Array
    """(M, 6) poses; of the driver, none."""


def path(t: float) -> Array:
    """Where the loop wants the hand (4, 4) after t seconds: up to 0.09 m/s and 25 deg/s, from rest."""
    T = transform(START)
    w = 2 * math.pi / 4
    T[:3, 3] += [0.05 * (1 - math.cos(w * t)) / 2, 0.03 * math.sin(w * t) ** 2, -0.004 * t]
    T[:3, :3] = rotation([0, 0, 0.3 * (1 - math.cos(w * t)) / 2]) @ T[:3, :3]
    return T


def onwards(t: float, config: Config) -> Array:
    """The path, and after its end evenly along y at 0.06 m/s, to be killed on the way."""
    T = path(min(t, config.seconds))
    T[1, 3] -= 0.06 * max(0.0, t - config.seconds)
    return T


def due_times(rate_hz: float, seconds: float, seed: int) -> Array:
    """When each target comes [s]: 1 to 8 ms into its slot, one in twenty half a period late, and every
    four seconds three are left out."""
    rng = np.random.default_rng(seed)
    slots = np.arange(int(seconds * rate_hz))
    due = slots / rate_hz + rng.uniform(0.001, 0.008, len(slots))
    due[rng.random(len(slots)) < 0.05] += 0.5 / rate_hz
    kept = slots % int(4 * rate_hz) < int(4 * rate_hz) - 3
    return due[kept]


def send(method: str, config: Config, pipe: Any) -> None:
    """A process: follows the path, sends its record, and goes on until it is killed."""
    try:
        (drive if method == "driver" else stream)(method, config, pipe)
    except (RobotError, RuntimeError) as error:
        pipe.send(str(error))


def drive(method: str, config: Config, pipe: Any) -> None:
    """The loop, with rt.robot.ur."""
    from rt.robot.ur import open_robot

    due = due_times(config.rate, config.seconds, config.seed)
    with (
        open_robot(config.address, rate_hz=config.rate, T_flange_hand=np.eye(4)) as robot,
        real_time("auto"),  # as rt.servo
    ):
        began = time.monotonic_ns()
        times, targets = [], []
        for t in due:
            time.sleep(max(0.0, began * 1e-9 + t - time.monotonic()))
            T = path(float(t))
            robot.move(T)
            times.append(time.monotonic_ns())
            targets.append(pose_vector(T))
        pipe.send(
            Record(np.array(times), np.array(targets), np.zeros(0, np.int64), np.empty((0, 6)))
        )
        t = config.seconds
        while True:  # from the arm's rest, for the killing
            robot.move(onwards(t, config))
            time.sleep(1 / config.rate)
            t += 1 / config.rate


def stream(method: str, config: Config, pipe: Any) -> None:
    """As the driver's streaming process does, with either command."""
    from rt.robot.follower import Follower, MotionLimits
    from rt.robot.ur_link import connect, read_packet
    from rt.robot.ur_stream import (
        GAIN,
        HORIZON_PERIODS,
        LEAD_S,
        LOOKAHEAD_S,
        Setup,
        ahead,
        privileges,
    )

    setup = Setup(
        config.address, config.rate, [], 0.25, 1.0, 90.0, 0.15, 1.0, 10.0, 0.05, None, True, True
    )
    limits: MotionLimits = setup.limits()
    link = connect(config.address)
    link.start_program()
    link.control.setWatchdog(setup.watchdog_hz)
    privileges()
    follower = Follower(path(0.0), limits, HORIZON_PERIODS / config.rate)
    due = due_times(config.rate, config.seconds, config.seed).tolist()
    times: list[int] = []
    sent: list[int] = []
    targets: list[Array] = []
    points: list[Array] = []
    clock, began, k = Clock(link.rate_hz), time.monotonic_ns(), 0
    while True:
        clock.wait()
        now_ns = time.monotonic_ns()
        now_s, t = now_ns * 1e-9, (now_ns - began) * 1e-9
        while k < len(due) and t >= due[k]:
            T = onwards(due[k], config)
            follower.go(T, now_s)
            times.append(now_ns)
            targets.append(pose_vector(T))
            k += 1
        if k == len(due):
            if pipe is not None:
                record = Record(
                    np.array(times), np.array(targets), np.array(sent), np.array(points)
                )
                pipe.send(record)
                pipe = None
            due.append(due[-1] + 1 / config.rate)
        T, twist = follower.at(now_s)
        if method != "speedL":
            period_s = 1 / link.rate_hz
            sent_T = ahead(T, twist, LEAD_S if method.endswith("ahead") else 0.0)
            link.control.servoL(pose_vector(sent_T).tolist(), 0.0, 0.0, period_s, LOOKAHEAD_S, GAIN)
        else:
            error = difference(transform(read_packet(link.receive).pose), T)
            link.control.speedL((twist + _PULL_PER_S * error).tolist(), 4.0, 0.0)
        sent.append(now_ns)
        points.append(pose_vector(T))


def measure(method: str, load: int, config: Config) -> tuple[dict[str, Any], dict[str, Array]]:
    """One row of the table, and the curves to draw. Raises RobotError."""
    options = ["--model", config.model, "--start", *map(str, START)]
    context = multiprocessing.get_context("spawn")
    with start_emulator(config.address, *options, control_port=30961) as emulator:
        receive, give = context.Pipe(duplex=False)
        process = context.Process(target=send, args=(method, config, give), daemon=True)
        with background_load(load):
            process.start()
            try:
                if not receive.poll(config.seconds + 60):
                    raise RobotError(f"{method}: no answer from its process")
                record = receive.recv()
                if isinstance(record, str):
                    raise RobotError(f"{method}: {record}")
                rows, offset_ns = motion(emulator, config.seconds + 5)
                time.sleep(0.7)
                child = driver_process(process.pid) if method == "driver" else None
                killed_s = emulator.tell("state")["time_s"]
                for pid in filter(None, (child, process.pid)):
                    os.kill(pid, 9)  # as when the computer dies
                time.sleep(1.0)
                if receive.poll():
                    raise RobotError(f"{method}: {receive.recv()}")
                emulator.wait_still()
                runs_on = emulator.motion(3)
            finally:
                process.kill()
                process.join()
    row = {"method": method, "load": load}
    row |= figures(record, rows, offset_ns)
    after = runs_on[runs_on[:, 0] >= killed_s]
    row["runs_on_mm"] = float(np.linalg.norm(np.diff(after[:, 1:4], axis=0), axis=1).sum() * 1e3)
    row["runs_on_ms"] = 1e3 * emulator_rest_s(runs_on, killed_s)
    t = (rows[:, 0] * 1e9 + offset_ns - record.target_ns[0]) * 1e-9
    curves = {"t": t, "x": rows[:, 1], "vx": rows[:, 7]}
    return row, curves


def driver_process(pid: int | None) -> int | None:
    """The streaming process of the driver in a process."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    for child in children:
        if b"rt.robot.ur_stream" in Path(f"/proc/{child}/cmdline").read_bytes():
            return int(child)
    return None


def emulator_rest_s(rows: Array, since_s: float) -> float:
    moving = rows[np.linalg.norm(rows[:, 7:10], axis=1) > 1e-3, 0]
    return max(0.0, float(moving[-1]) - since_s) if len(moving) else 0.0


def motion(emulator: Emulator, seconds: float) -> tuple[Array, int]:
    """The log, and what to add to its times (as ns) for time.monotonic_ns."""
    now = emulator.tell("state")
    return emulator.motion(seconds), now["monotonic_ns"] - round(now["time_s"] * 1e9)


def figures(record: Record, rows: Array, offset_ns: int) -> dict[str, Any]:
    """Lags [ms], errors [mm], acceleration [m/s^2] and jerk [m/s^3] of the settled part."""
    t = (rows[:, 0] * 1e9 + offset_ns - record.target_ns[0]) * 1e-9
    end = (record.target_ns[-1] - record.target_ns[0]) * 1e-9
    inside = (t > _SETTLED_S) & (t < end)
    t, place = t[inside], rows[inside, 1:4]
    velocity, dt = rows[inside, 7:10], float(np.median(np.diff(rows[:, 0])))
    found: dict[str, Any] = {"set_point_lag_ms": None, "set_point_error_mm": None}

    def behind(times_ns: NDArray[np.int64], places: Array) -> tuple[float, float, float]:
        """The delay [ms] that explains most, what it leaves [mm RMS], and the error without it."""
        own = (times_ns - record.target_ns[0]) * 1e-9

        def error_mm(lag_s: float) -> float:
            at = np.stack([np.interp(t - lag_s, own, places[:, k]) for k in range(3)], axis=1)
            return float(np.sqrt(((at - place) ** 2).sum(axis=1).mean()) * 1e3)

        lags = np.arange(0, 0.25, 0.001)
        errors = [error_mm(lag) for lag in lags]
        best = int(np.argmin(errors))
        return float(lags[best] * 1e3), errors[best], error_mm(0.0)

    if len(record.sent_ns):
        lag, _, error = behind(record.sent_ns, record.set_points[:, :3])
        found["set_point_lag_ms"], found["set_point_error_mm"] = lag, error
    found["lag_ms"], found["shape_error_mm"], found["error_mm"] = behind(
        record.target_ns, record.targets[:, :3]
    )
    acceleration = np.diff(_smooth(velocity, dt), axis=0) / dt
    jerk = np.linalg.norm(np.diff(acceleration, axis=0), axis=1) / dt
    size = np.linalg.norm(acceleration, axis=1)
    found["acceleration_peak_m_s2"] = float(size.max())
    found["jerk_p99_m_s3"] = float(np.percentile(jerk, 99))
    found["jerk_peak_m_s3"] = float(jerk.max())
    return found


def _smooth(values: Array, dt: float) -> Array:
    """Mean over 16 ms: what an arm's mass would feel of steps between two packets."""
    n = max(1, round(0.016 / dt))
    kernel = np.ones(n) / n
    return np.stack([np.convolve(v, kernel, "valid") for v in values.T], axis=1)


COLUMNS: dict[str, tuple[str, Callable[[Any], str]]] = {
    "set_point_lag_ms": ("set-pt\nlag ms", "{:.0f}".format),
    "set_point_error_mm": ("error\nmm", "{:.2f}".format),
    "lag_ms": ("target\nlag ms", "{:.0f}".format),
    "shape_error_mm": ("shape\nmm", "{:.2f}".format),
    "acceleration_peak_m_s2": ("peak\nm/s2", "{:.2f}".format),
    "jerk_p99_m_s3": ("p99\nm/s3", "{:.0f}".format),
    "jerk_peak_m_s3": ("peak\nm/s3", "{:.0f}".format),
    "runs_on_mm": ("on\nmm", "{:.1f}".format),
    "runs_on_ms": ("on\nms", "{:.0f}".format),
}


def table(result: dict[str, Any]) -> Table:
    shown = Table(
        title=f"Streaming to the emulated {result['config']['model']}, targets at "
        f"{result['config']['rate']:g} Hz",
        title_style="bold",
        caption="set-pt lag, error: behind the set-points; target lag: behind the loop's targets; shape:\n"
        "error but for that lag; errors are root mean squares; acceleration m/s2 and jerk m/s3; on:\n"
        "how far and long the arm runs on when the sender's computer dies (watchdog 10 Hz)",
        box=box.SIMPLE_HEAD,
    )
    for name in ("load", "sender"):
        shown.add_column(name)
    for head, _ in COLUMNS.values():
        shown.add_column(head, justify="right")
    for row in result["rows"]:
        cells = ("-" if row[k] is None else text(row[k]) for k, (_, text) in COLUMNS.items())
        shown.add_row(str(row["load"]), row["method"], *cells)
    return shown


def draw(curves: dict[tuple[int, str], dict[str, Array]], config: Config, file: Path) -> None:
    """Place and speed along x, one column for each load."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(
        2, len(config.load), figsize=(6 * len(config.load), 6), layout="constrained", squeeze=False
    )
    for column, load in enumerate(config.load):
        top, low = axes[0, column], axes[1, column]
        t = np.arange(0, config.seconds, 0.01)
        top.plot(t, [path(s)[0, 3] * 1e3 for s in t], "#22262b", ls=":", label="wanted")
        for method, colour in zip(
            METHODS, ("#8b8f98", "#2667c9", "#d1495b", "#30b57c"), strict=True
        ):
            c = curves[load, method]
            inside = (c["t"] > 0) & (c["t"] < config.seconds)
            top.plot(c["t"][inside], c["x"][inside] * 1e3, color=colour, label=method, lw=1)
            low.plot(c["t"][inside], c["vx"][inside] * 1e3, color=colour, label=method, lw=1)
        top.set(title=f"{load} busy processes beside", ylabel="x [mm]")
        low.set(xlabel="time [s]", ylabel="speed along x [mm/s]")
        top.legend()
    write_figure(figure, file, dpi=110)


def main() -> int:
    try:
        config = tyro.cli(Config, prog="python -m bench.tracking")
        folder = output_folder("tracking", config.out)
        todo = [(load, method) for load in config.load for method in METHODS]
        rows, curves = [], {}
        for load, method in progress(todo, unit="run", title="tracking"):
            row, curves[load, method] = measure(method, load, config)
            rows.append(row)
        result = {"config": asdict(config), "rows": rows}
        write_json(folder / "tracking.json", result)
        draw(curves, config, folder / "tracking.png")
        console = Console()
        console.print(table(result))
        print(f"{folder}/: tracking.json, tracking.png")
    except (RobotError, ValueError, OSError) as error:
        print(f"bench.tracking: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
