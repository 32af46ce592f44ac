"""The emulated controller: the program of ur-rtde, its registers, the watchdog, safety, contact, the log.

As a real one does, it refuses what cannot be followed: a servo target that the joints could reach only at
more than SUDDEN times their greatest speed ("C204: sudden change in target position"), one that is no number,
joints beyond their range (C158), and a tool faster than the safety limit (a violation). SUDDEN is this
emulator's own; a real controller's threshold is not documented.

`tick` is one period of the controller; nothing here knows of sockets. The program is not interpreted:
it is known to be the one that ur-rtde uploads, and its commands (by number, in input_int_register_0)
are carried out as it does.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rt.robot.kinematics import ARMS, ArmModel, joint_frames
from rt.robot.ur_pose import pose_vector, transform
from sim.hardware.ur.arm import JointArm, Motion, home
from sim.hardware.ur.safety import (
    EMERGENCY,
    NORMAL,
    PROTECTIVE,
    REDUCED_BIT,
    SAFETY,
    VIOLATION,
)

Array = NDArray[np.float64]

REAL_TIME = (6, 9, 10, 11, 24, 25, 26, 27, 38, 58, *range(66, 72))
"""Commands that the program looks at every tick; all others run once, until the register is cleared."""
LOGGED_S = 120.0
BREAKING_FORCE_N = 250.0
"""A push above this is a collision: protective stop."""

SUDDEN = 2.0
SPEED_LIMIT_M_S, REDUCED_LIMIT_M_S = 1.5, 0.75
"""Safety limits of the tool's speed, by default, and in reduced mode."""
GRAVITY_M_S2 = 9.81
PAYLOAD_KG = 1.5

STOPPING, STOPPED, PLAYING, PAUSED = 0, 1, 2, 4


@dataclass(frozen=True)
class Model:
    """Differences between the two generations of controllers."""

    rate_hz: int
    version: tuple[int, int, int, int]
    arm: ArmModel


MODELS = {
    "e": Model(500, (5, 11, 0, 108249), ARMS["UR5e"]),
    "cb3": Model(125, (3, 15, 0, 106331), ARMS["UR5"]),
}


class EmulatedController:
    """Everything but the wire. Time is the controller's own, seconds; it starts at `started_s`."""

    def __init__(
        self,
        model: Model,
        T_flange_tcp: Array,
        start: Array | None,
        delay_s: float,
        acceleration_m_s2: float,
        brake_m_s2: float,
    ) -> None:
        self.model, self.dt = model, 1 / model.rate_hz
        self.arm = JointArm(
            model.arm,
            home(model.arm, T_flange_tcp, start),
            T_flange_tcp,
            round(delay_s / self.dt),
            acceleration_m_s2,
            self.dt,
        )
        self.brake_m_s2 = brake_m_s2
        self.ticks, self.started_s = 0, 1000.0
        self.safety, self.powered = NORMAL, True
        self.reduced = False
        self.speed_slider = 1.0
        self.payload_kg, self.true_payload_kg = PAYLOAD_KG, PAYLOAD_KG
        """Mass set in the installation, and the one that hangs there."""
        self.speed_limit_m_s = SPEED_LIMIT_M_S
        self.tip_travel_m: Callable[[], float] = lambda: 0.0
        """Of the fingertips beyond the tool centre point, as the gripper has closed."""
        self.runtime = STOPPED
        self.starts_at: float | None = None
        self.remote, self.in_use = True, False
        self.ints: dict[int, int] = {}
        self.doubles: dict[int, float] = {}
        self.out_ints, self.out_doubles = [0] * 48, [0.0] * 48
        self.commanded = Motion("stop")
        self.busy: Callable[[], bool] | None = None
        """Function that is true while a blocking command runs."""
        self.waiting_for_clear = False
        self.operation = 0
        self.watchdog_hz, self.kicked_s = 0.0, 0.0
        self.table_z_m: float | None = None
        self.stiffness_n_m = 5000.0
        self.external = np.zeros(6)
        self.wrench = np.zeros(6)
        self.zero = np.zeros(6)
        self.events: list[tuple[float, str]] = []
        self.log = np.zeros((int(LOGGED_S * model.rate_hz), 13))
        """Rows of time [s], pose (6,), twist (6,) of the tool; a ring."""
        self.unknown: deque[int] = deque(maxlen=100)

    @property
    def time_s(self) -> float:
        return self.started_s + self.ticks * self.dt

    def note(self, what: str) -> None:
        self.events.append((self.time_s, what))
        del self.events[:-1000]

    # --- what comes in ----------------------------------------------------------------------------

    def upload(self, script: str) -> None:
        """A program came in on the script port; one that does not fit the state is dropped, as there."""
        if self.safety != NORMAL or not self.powered or not self.remote:
            self.note("script refused")
        elif "def " in script:
            self._end_program("script replaced") if self.runtime != STOPPED else None
            self.starts_at = self.time_s + 0.02

    def receive(self, values: dict[str, int | float], now_s: float) -> None:
        """Input registers by name; now_s is when they came, on the controller's clock."""
        for name, value in values.items():
            kind, _, number = name.rpartition("_")
            if kind == "input_int_register":
                self.ints[int(number)] = int(value)
                if number == "0":
                    self.kicked_s = now_s
            elif kind == "input_double_register":
                self.doubles[int(number)] = float(value)

    # --- faults -----------------------------------------------------------------------------------

    def protective_stop(self, why: str = "protective stop") -> None:
        self.stop_safely(PROTECTIVE, why)

    def emergency_stop(self) -> None:
        self.stop_safely(EMERGENCY, "emergency stop")

    def stop_safely(self, safety: str, why: str) -> None:
        """Enter a safety state (sim.hardware.ur.safety) and stop."""
        state = SAFETY[safety]
        self.safety, self.powered = safety, self.powered and state.powered
        if state.pauses and self.runtime == PLAYING:
            self.pause(why)
        else:
            self._end_program(why)

    def pause(self, why: str = "paused") -> None:
        """The program stands, and the arm brakes."""
        if self.runtime == PLAYING:
            self.note(why)
            self.runtime = PAUSED
            self.arm.brake(self.brake_m_s2)
            self.commanded = Motion("stop", acceleration=self.brake_m_s2)

    def resume(self) -> None:
        if self.runtime == PAUSED and self.safety == NORMAL:
            self.note("resumed")
            self.runtime, self.kicked_s = PLAYING, self.time_s

    def set_reduced(self, yes: bool) -> None:
        self.reduced = yes
        self.speed_limit_m_s = REDUCED_LIMIT_M_S if yes else SPEED_LIMIT_M_S

    def program_stop(self, why: str = "program stopped") -> None:
        self._end_program(why)

    def clear(self) -> None:
        """Back to normal after a stop, as a person at the pendant would; no program runs then."""
        self.safety, self.powered = NORMAL, True
        self.note("cleared")

    def _end_program(self, why: str) -> None:
        self.note(why)
        self.runtime, self.starts_at, self.watchdog_hz = STOPPED, None, 0.0
        self.busy, self.waiting_for_clear = None, False
        self.out_ints[:3] = [0, 0, 0]
        self.commanded = Motion("stop", acceleration=self.brake_m_s2)
        self.arm.brake(self.brake_m_s2)

    # --- one period -------------------------------------------------------------------------------

    def tick(self) -> None:
        self.ticks += 1
        if self.starts_at is not None and self.time_s >= self.starts_at:
            self.runtime, self.starts_at = PLAYING, None
            self.ints[0] = 0
            self.note("program started")
        if self.runtime == PLAYING:
            if self.watchdog_hz > 0 and self.time_s - self.kicked_s > 1 / self.watchdog_hz:
                self._end_program("watchdog")
            else:
                self._program()
                self._progress()
        self.arm.step(self.commanded, self.speed_slider)
        self._watch()
        self._contact()
        row = self.log[self.ticks % len(self.log)]
        row[0], row[1:7], row[7:] = self.time_s, pose_vector(self.arm.T), self.arm.twist

    def _watch(self) -> None:
        """Limits of joints and speed."""
        beyond = np.flatnonzero(np.abs(self.arm.q) > 2 * math.pi)
        if len(beyond) and self.safety == NORMAL:
            self.protective_stop(f"C158: joint {beyond[0]} is beyond its range")
        speed_m_s = float(np.linalg.norm(self.arm.twist[:3]))
        if speed_m_s > self.speed_limit_m_s and self.safety == NORMAL:
            self.stop_safely(VIOLATION, f"violation: {speed_m_s:.2f} m/s")

    def _contact(self) -> None:
        """Force on the tool (actual_TCP_force): a table that gives like a spring under the fingertips, a
        payload that is not the one set, and what is pushed."""
        force = self.external.copy()
        force[2] -= GRAVITY_M_S2 * (self.true_payload_kg - self.payload_kg)
        if self.table_z_m is not None:
            tip_z_m = self.arm.T[2, 3] + self.tip_travel_m() * self.arm.T[2, 2]
            depth = self.table_z_m - tip_z_m
            if depth > 0:
                force[2] += self.stiffness_n_m * depth
        self.wrench = force - self.zero
        pushed = float(np.linalg.norm(force[:3]))
        if pushed > BREAKING_FORCE_N and self.safety == NORMAL:
            self.note(f"collision at {pushed:.0f} N")
            self.protective_stop()

    def _program(self) -> None:
        command = self.ints.get(0, 0)
        if self.busy is not None:
            if self.busy():
                return
            self.busy, self.waiting_for_clear = None, True
            self.out_ints[0] = 2
        if self.waiting_for_clear:
            if command:
                return
            self.waiting_for_clear = False
        if command in REAL_TIME:
            self._stream(command)
            self.out_ints[0] = 1
        elif command == 0:
            self.out_ints[0] = 1
        elif command == 255:
            self._end_program("script stopped")
        else:
            self.busy = self._once(command)

    def _d(self, first: int, count: int) -> Array:
        return np.array([self.doubles.get(k, 0.0) for k in range(first, first + count)])

    def _stream(self, command: int) -> None:
        v = self._d(0, 11)
        if not np.isfinite(v).all():
            self.protective_stop("C153: a command that is no number")
        elif command in (24, 11):
            kind: Any = "servo" if command == 24 else "servo_j"
            aim = transform(v[:6]) if command == 24 else v[:6]
            motion = Motion(kind, aim, lookahead_s=min(max(v[9], 0.03), 0.2))
            if self.arm.hurry(motion) > SUDDEN:
                self.protective_stop("C204: sudden change in target position")
            else:
                self.commanded = motion
        elif command == 10:
            self.commanded = Motion("speed", v[:6], v[6])
        elif command == 9:
            self.commanded = Motion("speed_j", v[:6], v[6])
        else:
            self.unknown.append(command)

    def _once(self, command: int) -> Callable[[], bool]:
        """Begin a command that runs once; returns whether it still runs, to be asked every tick."""
        d, at_once = self._d, lambda: False
        if command in (1, 3):
            aim = d(0, 6) if command == 1 else transform(d(0, 6))
            kind: Any = "move_j" if command == 1 else "move"
            if not np.isfinite(d(0, 8)).all():
                self.protective_stop("C153: a command that is no number")
                return at_once
            self.commanded = Motion(kind, aim, max(d(7, 1)[0], 1e-3), max(d(6, 1)[0], 0.0))
            self.arm.arrived = False
            if self.ints.get(1, 0):
                self.operation = self.operation % 127 + 1
                return at_once
            return lambda: not self.arm.arrived
        if command in (15, 16, 33, 34):
            kind = "stop_j" if command == 34 else "stop"
            self.commanded = Motion(kind, acceleration=max(float(np.nan_to_num(d(0, 1)[0])), 1e-3))
            if command in (33, 34) and self.ints.get(1, 0):
                return at_once
            return lambda: bool(self.arm.qd.any()) or self.arm.motion.kind not in ("stop", "stop_j")
        if command == 35:
            self.watchdog_hz, self.kicked_s = float(np.nan_to_num(d(0, 1)[0])), self.time_s
            self.note(f"watchdog {self.watchdog_hz:g} Hz")
        elif command == 40:
            self.out_doubles[:6] = pose_vector(self.arm.T_flange_tcp).tolist()
        elif command == 29:
            if np.isfinite(d(0, 6)).all():
                self.arm.set_tcp(transform(d(0, 6)))
        elif command == 8:
            self.zero = self.wrench + self.zero
        else:
            self.unknown.append(command)
        return at_once

    def _progress(self) -> None:
        """output_int_register_2: bit 15 while an asynchronous move runs, bits 24 to 30 its number."""
        moving = self.commanded.kind in ("move", "move_j") and not self.arm.arrived
        self.out_ints[2] = (self.operation << 24) | (int(moving) << 15) if self.operation else 0

    # --- what can be asked ------------------------------------------------------------------------

    @property
    def robot_mode(self) -> int:
        return 7 if self.powered else 3

    @property
    def safety_mode(self) -> int:
        return 2 if self.safety == NORMAL and self.reduced else SAFETY[self.safety].mode

    @property
    def safety_bits(self) -> int:
        return SAFETY[self.safety].bits | (REDUCED_BIT if self.reduced else 0)

    @property
    def status_bits(self) -> int:
        return int(self.powered) | int(self.runtime == PLAYING) << 1

    def flange(self) -> Array:
        return np.asarray(joint_frames(self.model.arm, self.arm.q)[6])

    def motion_log(self, seconds: float) -> Array:
        """The last rows (N, 13) of the log, oldest first."""
        n = min(int(seconds * self.model.rate_hz), self.ticks, len(self.log))
        at = (self.ticks - np.arange(n - 1, -1, -1)) % len(self.log)
        return self.log[at]

    def is_still(self) -> bool:
        t = self.arm.twist
        return float(np.linalg.norm(t[:3])) < 1e-4 and float(np.linalg.norm(t[3:])) < math.radians(
            0.02
        )
