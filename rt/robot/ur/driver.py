"""A Universal Robots arm (CB3 or e-Series), through ur-rtde.

The arm itself is driven by a process of its own (rt.robot.ur.stream), which checks, streams, watches and
stops it; this module starts that process and talks with it through shared memory, so that nothing
here ever waits for the network. States are stamped with the controller's own time, mapped to
time.monotonic_ns (rt.robot.ur.link.ClockMap). Faults are raised by `state` and `move` as UrError, whose
`name` is one of: protective_stop, emergency_stop, safeguard_stop, safety_violation, safety_fault,
recovery_mode, program_stopped, connection_lost, frozen, stream_stalled, driver_failed; and before
anything moves: unreachable, not_remote, not_running, program_running, program_refused, in_use,
wrong_tcp, wrong_device, too_old, not_supported, no_library, no_watchdog, connection_failed. None is
ever resumed from.
"""

from __future__ import annotations

import json
import signal
import sys
import time
from dataclasses import asdict
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rt.pose import inverse
from rt.robot import RobotState
from rt.robot.kinematics import ARMS, ArmModel, recognise
from rt.robot.ur.link import UrError, stop_program
from rt.robot.ur.settings import StreamSetup
from rt.robot.ur.shared import STARTS_PROGRAM, STOP, TARGET, attach, create
from rt.robot.ur.stream import ENDS_WITHIN_S, OPENS_WITHIN_S, STUCK_S
from rt.tools.process import Child, is_sleeping

Array = NDArray[np.float64]
TOLD_MM, TOLD_DEG = 1.0, 1.0
"""Error of the controller's tool centre point from which it is reported."""
_CLOSES_WITHIN_S = STUCK_S + ENDS_WITHIN_S + 0.5


class UR:
    """An arm that follows a streamed target (rt.robot.Robot). Opened by `open_robot`."""

    def __init__(self, setup: StreamSetup) -> None:
        self.setup = setup
        memory = create()
        self._state, self._command = attach(memory)
        self._child = Child(
            "rt.robot.ur.stream",
            [str(memory), json.dumps(asdict(setup))],
            writes=True,  # nothing is written: its end tells the process that this one has ended
            keeps=True,
            pass_fds=(memory,),
        )
        self._lost: UrError | None = None
        """Found from here, as the streaming process could not tell."""
        self.about: dict[str, Any] = {}
        """version, polyscope, model, tcp, payload_kg, speed_slider, ...: what the controller told; arm: the
        model as recognised."""
        self.remarks: list[str] = []
        """Lines on settings of the controller that are unusual; they are printed too."""
        self.arm_model: ArmModel | None = None
        """None: none whose flange is where the controller has it."""
        try:
            self._wait_until_open()
            self._recognise()
        except BaseException:
            self.close()
            raise

    def _wait_until_open(self) -> None:
        deadline = time.monotonic() + OPENS_WITHIN_S
        while self._state.here["stamp_ns"] == 0:
            self._raise_fault()
            if time.monotonic() > deadline:
                raise UrError(
                    "connection_failed",
                    f"{self.setup.host} was not ready within {OPENS_WITHIN_S:g} s; try again",
                )
            time.sleep(0.002)
        self.about = json.loads(self._read()["message"])

    def _recognise(self) -> None:
        state = self.state()
        assert state.q is not None
        T_base_flange = state.T_base_hand @ inverse(self.setup.T_flange_hand)
        self.arm_model, off_m = recognise(self.about.get("model", ""), state.q, T_base_flange)
        self.about["arm"] = self.arm_model.name if self.arm_model else "unknown"
        if self.arm_model is None:
            print(
                f"rt.robot.ur: the arm {self.about.get('model', '')!r} is unknown (known: "
                f"{', '.join(ARMS)}): its reach, joint speeds and shoulder singularity are not checked",
                file=sys.stderr,
            )
        self.about["arm_off_mm"] = round(off_m * 1e3, 3)
        self.remarks = self._remarks()
        for line in self.remarks:
            print(f"rt.robot.ur: {line}", file=sys.stderr)

    def _remarks(self) -> list[str]:
        """Lines on what the controller is set to, as far as it is unusual."""
        about, lines = self.about, []
        off_mm, off_deg = about.get("tcp_off", (0.0, 0.0))
        if self.setup.max_tcp_error_m is not None and (off_mm >= TOLD_MM or off_deg >= TOLD_DEG):
            lines.append(
                f"the controller's tool centre point is {off_mm:g} mm and {off_deg:g} deg from the cell's "
                f"T_flange_hand; refused from {self.setup.max_tcp_error_m * 1e3:g} mm on"
            )
        if about.get("payload_kg") == 0:
            lines.append(
                "the payload is 0 kg: set mass and centre of gravity of hand and camera in the "
                "installation, or the measured forces are wrong"
            )
        for key, word in (("speed_slider", "speed slider"), ("speed_scaling", "speed scaling")):
            if about.get(key) is not None and about[key] < 0.995:
                lines.append(
                    f"the {word} is at {about[key]:.0%}: the arm will lag behind, or be stopped"
                )
                break
        if about.get("reduced"):
            lines.append("the reduced mode of the safety system is on: its lower limits hold")
        return lines

    def _raise_fault(self) -> None:
        if self._lost is not None:
            raise self._lost
        # looked at first: a process that leaves a fault has written it before it ends
        ended = self._child.code
        here = self._state.here
        if here["fault"]:
            record = self._state.read(self._patience_s)
            if record is None:
                raise UrError(
                    "driver_failed", "the streaming process died while it told of a fault"
                )
            raise UrError(record["fault"].decode(), record["message"].decode(errors="replace"))
        if ended is not None:
            if ended == -signal.SIGALRM:
                raise UrError(
                    "stream_stalled",
                    f"the streaming process hung for more than {STUCK_S:g} s and was ended; the "
                    "controller's watchdog has stopped the arm",
                )
            if ended < 0 and here["stamp_ns"] == 0:
                raise self._died_while_opening(-ended)
            if ended < 0:  # a signal: ur-rtde may crash when its connection breaks
                raise UrError(
                    "connection_lost",
                    f"the streaming process died of signal {-ended}; the controller's watchdog stops the arm",
                )
            raise UrError("driver_failed", f"the streaming process {self._child.end_text}")

    def _died_while_opening(self, number: int) -> UrError:
        """The watchdog may not be armed yet, so a program that was started is stopped by the dashboard."""
        end = ""
        if bytes(self._state.here["message"]) == STARTS_PROGRAM:
            stopped = stop_program(self.setup.host)
            end = (
                "; the control program was stopped"
                if stopped
                else "; stop the control program on the pendant"
            )
        return UrError(
            "connection_failed",
            f"the streaming process died of {signal.Signals(number).name} while it connected to "
            f"{self.setup.host}{end}; nothing has moved; check the versions of PolyScope and ur-rtde",
        )

    @property
    def _patience_s(self) -> float:
        """Longest silence of the streaming process [s]."""
        return 2 * self.setup.max_silence_s + 0.05

    def _read(self) -> Any:
        record = self._state.read(self._patience_s)
        if record is None:
            self._raise_fault()
            raise self._stalled(self._patience_s)
        return record

    def _stalled(self, silent_s: float) -> UrError:
        """Why the streaming process tells nothing: one that is not ready to run hangs in a call."""
        told = f"no state for {silent_s * 1e3:.0f} ms: the streaming process"
        if is_sleeping(self._child.pid):
            self._lost = UrError(
                "connection_lost",
                f"{told} hangs in a call to {self.setup.host}, as it may when the connection breaks; check "
                "cable and power",
            )
            return self._lost
        return UrError(
            "stream_stalled",
            f"{told} does not get the CPU; give it real-time priority, or stop other programs",
        )

    def now_ns(self) -> int:
        """time.monotonic_ns"""
        return time.monotonic_ns()

    def state(self) -> RobotState:
        """The newest packet's state, at once. Raises UrError if the arm is lost or stopped by itself."""
        self._raise_fault()
        record = self._read()
        stamp_ns = int(record["stamp_ns"])
        silent_s = (time.monotonic_ns() - stamp_ns) * 1e-9
        # The streaming process watches the controller; this watches the streaming process.
        if silent_s > self._patience_s:
            raise self._stalled(silent_s)
        return RobotState(
            stamp_ns,
            record["T_base_hand"].copy(),
            record["twist"].copy(),
            record["wrench"].copy(),
            record["q"].copy(),
            record["qd"].copy(),
            record["settings"].copy(),
        )

    def move(self, T_base_hand: ArrayLike) -> None:
        """Streams a target (4, 4) for the hand, at once; it holds for `max_target_age_s`, then the arm stops.

        Raises UrError if the arm is lost or stopped, ValueError for a target that is no rigid transform.
        """
        T = np.asarray(T_base_hand, dtype=np.float64)
        turn = T[:3, :3] if T.shape == (4, 4) else np.zeros((3, 3))
        if not (
            np.isfinite(T).all()
            and np.abs(turn @ turn.T - np.eye(3)).max() < 1e-4
            and np.linalg.det(turn) > 0
        ):
            raise ValueError(
                f"the target {T.tolist()} is no rigid transform (4, 4); nothing was sent"
            )
        self._raise_fault()
        self._command.write(kind=TARGET, T_base_hand=T, stamp_ns=time.monotonic_ns())

    def stop(self) -> None:
        """To rest at once, braking at 5 m/s^2; the target is forgotten. At any time, twice, also when
        the arm is lost (its watchdog stops it then)."""
        self._command.write(kind=STOP, stamp_ns=time.monotonic_ns())

    def close(self) -> None:
        """Stop the arm, end the program on the controller, and disconnect. May be called twice."""
        # Killed after a while if it hangs: the controller's watchdog stops the arm then.
        self._child.end(_CLOSES_WITHIN_S, terminate=False)

    def __enter__(self) -> UR:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def open_robot(host: str, *, T_flange_hand: ArrayLike, **settings: Any) -> UR:
    """Connect to a UR controller and check everything; nothing moves. A context manager.

    T_flange_hand: (4, 4), the hand's frame in the flange. settings: fields of StreamSetup
    (rt.robot.ur.settings). Raises UrError, by name, for an arm that is not ready; ValueError for a setting
    out of its range; TypeError for one that is not known.
    """
    T = np.asarray(T_flange_hand, dtype=np.float64)
    if T.shape != (4, 4) or not np.isfinite(T).all():
        raise ValueError(f"T_flange_hand must be a transform (4, 4), not {T.tolist()}")
    return UR(StreamSetup(host=host, T_flange_hand=T.tolist(), **settings))


def open_calibration(address: str = "", **_: Any) -> UR:
    """The arm for calib.handeye: the hand is the flange, slow, and free to be guided until it moves.

    The controller's tool centre point may be anything: poses are computed back to the flange.
    """
    if not address:
        raise UrError("unreachable", "no address of the arm; give --address")
    return open_robot(
        address,
        rate_hz=50.0,
        T_flange_hand=np.eye(4),
        max_acceleration_m_s2=0.5,
        max_turn_deg_s=45.0,
        max_target_age_s=0.3,
        max_silence_s=0.2,  # slow, from stop to stop: images are saved meanwhile
        max_tcp_error_m=None,
        program_at_once=False,
    )
