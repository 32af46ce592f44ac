"""The streaming process of a UR arm: at the controller's rate, from the loop's targets to set-points.

A process of its own, not a thread, for four reasons: the loop's interpreter lock and garbage never
delay a set-point; ur-rtde holds that lock while it connects; when a connection breaks, ur-rtde's control
interface reconnects by itself and may crash, and only ending the process forbids both; and a loop that
is killed, even by SIGKILL, is noticed at once here (its end of a pipe closes) and the arm is stopped.

Set-points go out as servoL, ahead along their own velocity by its lag. Measured against the alternatives
(docs/results.md; emulated e-Series, 30 Hz, up to 0.09 m/s): so the arm is 4 ms and 0.16 mm (RMS) behind the
set-points, without `ahead` 33 ms and 1.5 mm, with speedL closed over the measured pose 0 ms and 0.16 mm;
jerk (p99) is 42, 23 and 41 m/s^3. Silence decides: servoL's last command is a place, so an arm that hears
no more comes to rest there by itself (2.0 mm on at 0.06 m/s; 3.8 mm with a busy computer), where under
speedL it runs on until the watchdog (10.5 and 10.0 mm). A real arm's lag may differ; `ahead` is then off
by its speed times the difference.

The controller's watchdog is armed with the program and fed by the set-points themselves, or by kicks
while the arm rests. The process ends by the pipe's end, SIGTERM, or a fault (name and message
left in the shared memory). Nothing is ever resumed, unlocked, or connected again.
"""

from __future__ import annotations

import json
import signal
import sys
import threading
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rt.pose import inverse
from rt.robot.ur.follower import Follower, MotionLimits
from rt.robot.ur.lifetime import die_with_the_loop, end, give_up_in, privileges, until_told
from rt.robot.ur.link import (
    PAUSED,
    PLAYING,
    ClockMap,
    Link,
    Packet,
    UrError,
    connect,
    read_packet,
    read_settings,
    safety_fault,
    stop_program,
)
from rt.robot.ur.settings import StreamSetup
from rt.robot.ur.shared import STARTS_PROGRAM, STOP, TARGET, Block, attach
from rt.robot.ur_pose import pose_vector, rotation, rotation_vector, transform
from rt.tools.clock import Clock

Array = NDArray[np.float64]

LOOKAHEAD_S, GAIN = 0.03, 300.0
"""servoL's: the shortest lookahead it takes, as the set-points are smooth already."""
LEAD_S = 0.03
"""Set-points are sent ahead along their own velocity by servoL's lag, which so cancels."""
JERK_PER_S = 40.0
"""Jerk over acceleration: full acceleration is reached in 25 ms."""
STOP_LIMITS = MotionLimits(2.0, 5.0, 500.0, 10.0, 40.0, 4000.0)
"""Limits of `stop`: from 0.1 m/s to rest in 30 ms, from 90 deg/s in 55 ms, at every speed scale."""
HORIZON_PERIODS = 2.0
RESTED_S = 0.15
"""After the set-point has come to rest the arm needs its lag; then servoing ends."""
_AWAKE_S = 0.01
OPENS_WITHIN_S = 30.0
STUCK_S, STARTS_WITHIN_S, ENDS_WITHIN_S = 1.0, 8.0, 2.5
"""Longest that one period, the start of the program in the middle of a run, and the end may take; what hangs
for longer is ended by the kernel (the controller has stopped the arm by its watchdog long before)."""
LAST_S = 0.3
"""Longest that the last call to a silent controller may take."""
NAMED_S = 0.01
"""A stopped program waits this long for a safety status that explains it."""


def motion_limits(setup: StreamSetup) -> MotionLimits:
    """Limits of the set-point, with the speed scale in them."""
    acceleration = setup.max_acceleration_m_s2 * setup.speed_scale
    turn = np.radians(setup.max_turn_deg_s) * setup.speed_scale
    return MotionLimits(
        setup.max_speed_m_s * setup.speed_scale,
        acceleration,
        JERK_PER_S * acceleration,
        turn,
        4 * turn,
        JERK_PER_S * 4 * turn,
    )


class SetpointStream:
    """One connection, from its checks to its end."""

    def __init__(
        self, setup: StreamSetup, state: Block, command: Block, over: threading.Event
    ) -> None:
        self.setup, self.state, self.command, self.over = setup, state, command, over
        die_with_the_loop(True)
        give_up_in(OPENS_WITHIN_S)
        self.link: Link = connect(setup.host)
        die_with_the_loop(False)
        give_up_in(STARTS_WITHIN_S)
        self.receive, self.control = self.link.receive, self.link.control
        self.clock_map = ClockMap()
        self.packet: Packet = read_packet(self.receive)
        self.found_ns = self.sent_ns = self.looked_ns = time.monotonic_ns()
        self.unfed_ns = 0
        """Longest that the watchdog has waited for news from here."""
        self.silent_s = 0.0
        """Time without news in which this process was awake to hear it."""
        self.stopped_since_ns = 0
        self.seen = command.number
        self.target_ns = 0
        """When the target in force was given; 0 without one."""
        self.expired = False
        self.follower: Follower | None = None
        self.resting_since_ns = 0
        self.starting_until_ns = 0
        self.playing = False
        state.write(
            message=STARTS_PROGRAM
        )  # if this process dies now, the loop's process stops the program
        self.link.start_program()
        self.T_tcp_hand = self._tool()
        if setup.program_at_once:
            self._armed()
        else:
            self.control.stopScript()

    def _tool(self) -> Array:
        """T_tcp_hand (4, 4), from the tool centre point that the controller uses now."""
        T_flange_tcp = transform(self.control.getTCPOffset())
        T_flange_hand = np.array(self.setup.T_flange_hand)
        away = float(np.linalg.norm(T_flange_tcp[:3, 3] - T_flange_hand[:3, 3]))
        limit = self.setup.max_tcp_error_m
        if limit is not None and away > limit:
            self.control.stopScript()
            raise UrError(
                "wrong_tcp",
                f"the controller's tool centre point {T_flange_tcp[:3, 3].round(4).tolist()} m lies "
                f"{away:.4f} m from the cell's hand {T_flange_hand[:3, 3].round(4).tolist()} m (in the "
                f"flange), the limit is {limit:g} m; set it in the installation on the pendant, or "
                "correct the cell",
            )
        R = T_flange_tcp[:3, :3].T @ T_flange_hand[:3, :3]
        turn_deg = float(np.degrees(np.linalg.norm(rotation_vector(R))))
        self.link.about["tcp_off"] = [round(away * 1e3, 2), round(turn_deg, 2)]
        self.link.about["tcp"] = pose_vector(T_flange_tcp).round(6).tolist()
        return np.asarray(inverse(T_flange_tcp) @ T_flange_hand)

    def _armed(self) -> None:
        if not self.control.setWatchdog(self.setup.watchdog_hz):
            self.control.stopScript()
            raise UrError(
                "no_watchdog", f"{self.setup.host} does not arm its watchdog; nothing moves"
            )
        self.playing, self.starting_until_ns = True, 0
        self.sent_ns, self.unfed_ns = time.monotonic_ns(), 0

    # --- one period -------------------------------------------------------------------------------

    def tick(self) -> None:
        """Look, check, follow, send. Raises UrError at the first fault."""
        now_ns = time.monotonic_ns()
        try:
            self._look(now_ns)
            self._check(now_ns)
            if self.starting_until_ns:
                self._begin(now_ns)
            self.step(now_ns)
        except UrError:
            raise
        except Exception as error:
            if self._connected:
                raise
            raise self._lost(f": {error}") from error  # it broke in the middle of a call

    def step(self, now_ns: int) -> None:
        """Take the newest command, and send the set-point of this instant."""
        self._obey(now_ns)
        self._send(now_ns)

    def _look(self, now_ns: int) -> None:
        # A pause of this process is not the controller's: only some of it counts as silence, since the
        # library's thread needs a moment too. The age of the state tells the loop of it all the same.
        self.silent_s += min((now_ns - self.looked_ns) * 1e-9, _AWAKE_S)
        self.looked_ns = now_ns
        timestamp = self.receive.getTimestamp()
        if timestamp <= self.packet.timestamp_s:
            return  # the same news, or a controller whose time goes backwards: both are old news
        self.packet, self.found_ns, self.silent_s = read_packet(self.receive), now_ns, 0.0
        self.publish(self.clock_map.stamp_ns(self.packet.timestamp_s, now_ns))

    def publish(self, stamp_ns: int) -> None:
        p = self.packet
        T_base_tcp = transform(p.pose)
        twist = p.twist.copy()
        twist[:3] += np.cross(twist[3:], T_base_tcp[:3, :3] @ self.T_tcp_hand[:3, 3])
        self.state.write(
            stamp_ns=stamp_ns,
            timestamp_s=p.timestamp_s,
            T_base_hand=T_base_tcp @ self.T_tcp_hand,
            twist=twist,
            wrench=p.wrench,
            q=p.q,
            qd=p.qd,
            settings=read_settings(self.receive, self.link.about.get("payload_kg") is not None),
            safety_bits=p.safety_bits,
            runtime=p.runtime,
            moving=int(self.follower is not None),
        )

    def _check(self, now_ns: int) -> None:
        host = self.setup.host
        if not self._connected:
            raise self._lost()
        if (fault := safety_fault(self.packet.safety_bits)) is not None:
            raise UrError(*fault)
        if self.silent_s > self.setup.max_silence_s:
            raise UrError(
                "frozen",
                f"no new data from {host} for {(now_ns - self.found_ns) / 1e6:.0f} ms, the limit is "
                f"{self.setup.max_silence_s * 1e3:.0f} ms; check cable and controller",
            )
        if not self.playing or self.packet.runtime == PLAYING:
            self.stopped_since_ns = 0
            return
        self.stopped_since_ns = self.stopped_since_ns or now_ns
        if (now_ns - self.stopped_since_ns) * 1e-9 < NAMED_S:
            return
        if self.packet.runtime in PAUSED:
            raise UrError(
                "program_stopped",
                f"the control program on {host} was paused, on the pendant or by the safeguard; stop it "
                "there, and start again (nothing resumes by itself)",
            )
        unfed_s = max(self.unfed_ns, self.stopped_since_ns - self.sent_ns) * 1e-9
        fed = (
            f"{self.setup.watchdog_hz:g} Hz; longest without news from here {unfed_s * 1e3:.0f} ms"
        )
        if unfed_s > 0.9 / self.setup.watchdog_hz:
            who = f"by its watchdog ({fed}): this computer was too busy"
        else:
            who = (
                f"on the pendant or by an error, not by its watchdog ({fed}); see the pendant's log"
            )
        raise UrError("program_stopped", f"the control program on {host} has ended: {who}")

    @property
    def _connected(self) -> bool:
        return bool(self.receive.isConnected() and self.control.isConnected())

    def _lost(self, why: str = "") -> UrError:
        host = self.setup.host
        return UrError(
            "connection_lost", f"{host} has closed the connection{why}; check cable and power"
        )

    def _begin(self, now_ns: int) -> None:
        """The program was started and is awaited."""
        if self.packet.runtime == PLAYING and self.control.isProgramRunning():
            self._armed()
        elif now_ns > self.starting_until_ns:
            raise UrError(
                "program_refused", f"{self.setup.host} does not start the control program"
            )

    def _obey(self, now_ns: int) -> None:
        """The newest command, if there is one, and the age of the last target."""
        now_s = now_ns * 1e-9
        if self.command.number != self.seen:
            command = self.command.read()
            if command is None:
                pass  # half written: its writer does not get the CPU, or has died; looked at again
            elif command["kind"] == TARGET and not self.playing and not self.over.is_set():
                # Kept until the program runs: a set-point that went ahead meanwhile would make it jump.
                self._call_for_program(now_ns)
                return
            else:
                self.seen = int(command["end"])
                self._take(command, now_s)
        age_s = (now_ns - self.target_ns) * 1e-9
        if self.follower and not self.expired and age_s > self.setup.max_target_age_s:
            self.stop_arm(now_s)

    def _take(self, command: Any, now_s: float) -> None:
        """A command that is whole: a target for the set-point, or to stop it."""
        if command["kind"] == TARGET and not self.over.is_set():
            if self.follower is None:
                T_base_hand = transform(self.packet.pose) @ self.T_tcp_hand
                horizon_s = HORIZON_PERIODS / self.setup.rate_hz
                self.follower = Follower(T_base_hand, motion_limits(self.setup), horizon_s)
            self.follower.go(command["T_base_hand"], now_s)
            self.target_ns, self.expired = int(command["stamp_ns"]), False
        elif command["kind"] == STOP:
            self.stop_arm(now_s)

    def _call_for_program(self, now_ns: int) -> None:
        if not self.starting_until_ns:
            self.control.reuploadScript()
            self.starting_until_ns = now_ns + 5_000_000_000

    def stop_arm(self, now_s: float) -> None:
        """To rest with the stop's limits."""
        if self.follower is not None:
            self.follower.stop(now_s, STOP_LIMITS)
            self.expired = True

    def _send(self, now_ns: int) -> None:
        if not self.playing or self.stopped_since_ns:
            return
        if self.follower is None:
            self.control.kickWatchdog()
            self._fed(now_ns)
            return
        T_base_hand = ahead(*self.follower.at(now_ns * 1e-9), LEAD_S)
        pose = pose_vector(T_base_hand @ inverse(self.T_tcp_hand)).tolist()
        period_s = 1 / self.link.rate_hz
        self.control.servoL(pose, 0.0, 0.0, period_s, LOOKAHEAD_S, GAIN)
        self._fed(now_ns)
        if not self.follower.resting(now_ns * 1e-9) or not self.expired:
            self.resting_since_ns = 0
        elif self.resting_since_ns == 0:
            self.resting_since_ns = now_ns
        elif (now_ns - self.resting_since_ns) * 1e-9 > RESTED_S:
            # At rest, with nothing to go to: the controller holds the arm, and only kicks remain.
            self.control.servoStop(STOP_LIMITS.acceleration_m_s2)
            self.follower = None

    def _fed(self, now_ns: int) -> None:
        self.unfed_ns = max(self.unfed_ns, now_ns - self.sent_ns)
        self.sent_ns = now_ns

    # --- the end ----------------------------------------------------------------------------------

    def finish(self) -> None:
        """Stop, wait until the arm rests, end the program, see that it has ended. About a second at most.

        Not disconnected with ur-rtde's own function, which takes another second: the sockets close with the
        process, and by then the controller has read all that was sent.
        """
        self.stop_arm(time.monotonic_ns() * 1e-9)
        clock = Clock(self.link.rate_hz)
        deadline = time.monotonic() + 1.0
        while self.follower is not None and time.monotonic() < deadline:
            clock.wait()
            self.tick()
        if self.playing:
            self.playing = False
            self.control.stopScript()
            while self.packet.runtime == PLAYING and time.monotonic() < deadline + 0.5:
                clock.wait()
                self._look(time.monotonic_ns())

    def end_paused(self, fault: UrError) -> None:
        """A program that is only paused would go on to its last set-point when it is resumed: the dashboard
        stops it."""
        if fault.name == "safeguard_stop" or self.packet.runtime in PAUSED:
            stop_program(self.setup.host, ENDS_WITHIN_S / 5)

    def coast(self) -> None:
        """The controller is silent: set-points go on blindly to a stop, then nothing feeds the watchdog.

        At the end servoStop, for an arm that lags behind its set-points. It waits for an answer that will not
        come: this process is ended then.
        """
        self.stop_arm(time.monotonic_ns() * 1e-9)
        clock = Clock(self.link.rate_hz)
        deadline = time.monotonic() + 0.2
        while self.follower is not None and time.monotonic() < deadline:
            clock.wait()
            now_ns = time.monotonic_ns()
            if self.follower.resting(now_ns * 1e-9):
                break
            self._send(now_ns)
        if self.playing:
            give_up_in(LAST_S)
            self.control.servoStop(STOP_LIMITS.acceleration_m_s2)


def ahead(T: Array, twist: Array, seconds: float) -> Array:
    """Pose (4, 4) after moving with a twist (6,) for some seconds."""
    moved = T.copy()
    moved[:3, 3] += seconds * twist[:3]
    moved[:3, :3] = rotation(seconds * twist[3:]) @ T[:3, :3]
    return moved


def run(setup: StreamSetup, state: Block, command: Block) -> None:
    over = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: over.set())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the loop decides, and closes the pipe
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM, signal.SIGTERM})
    threading.Thread(target=until_told, args=(over,), daemon=True).start()
    stream = SetpointStream(setup, state, command, over)
    if setup.realtime:
        privileges()
    state.write(message=json.dumps(stream.link.about).encode()[:479])
    clock = Clock(stream.link.rate_hz)
    try:
        while not over.is_set():
            give_up_in(STUCK_S if not stream.starting_until_ns else STARTS_WITHIN_S)
            clock.wait()
            stream.tick()
        give_up_in(ENDS_WITHIN_S)
        stream.finish()
    except UrError as fault:
        if not over.is_set():
            give_up_in(ENDS_WITHIN_S)
        leave(state, fault)
        stream.end_paused(fault)
        if fault.name == "frozen":
            stream.coast()
        raise


def leave(state: Block, fault: UrError) -> None:
    message = str(fault).removeprefix(f"{fault.name}: ")
    state.write(fault=fault.name.encode(), message=message.encode()[:479])


def main() -> int:
    memory, arguments = int(sys.argv[1]), json.loads(sys.argv[2])
    state, command = attach(memory)
    try:
        run(StreamSetup(**arguments), state, command)
    except UrError as fault:
        leave(state, fault)
        return 1
    except Exception as error:
        leave(state, UrError("driver_failed", f"{type(error).__name__}: {error}"))
        raise
    return 0


if __name__ == "__main__":
    try:
        code = main()
    except BaseException:
        import traceback

        traceback.print_exc()
        code = 2
    end(code)
