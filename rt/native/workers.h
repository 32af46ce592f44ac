// Threads that stay alive between calls and share out numbered tasks with the caller.
//
// A task is claimed by compare-and-swap on one ticket (generation, count, next), so a thread that
// wakes late or never costs nothing: the caller does the work itself and waits only for tasks that
// somebody has begun. Idle threads spin briefly, then sleep. After a fork the child starts its own.
#pragma once
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <time.h>
#ifdef __linux__
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <new>
#include <vector>

class Workers {
  public:
    using Task = void (*)(void *context, int task, int thread);
    static constexpr int MAX_THREADS = 64;

    explicit Workers(int threads) : threads_(threads) {
        if (threads_ > MAX_THREADS) threads_ = MAX_THREADS;
        start();
    }
    Workers(const Workers &) = delete;

    ~Workers() {
        if (!state_) return;
        {
            std::lock_guard<std::mutex> hold(state_->lock);
            state_->stop.store(true);
        }
        state_->wake.notify_all();
        for (pthread_t helper : helpers_) pthread_join(helper, nullptr);
        delete state_;
    }

    int threads() const { return threads_; }

    // The child of a fork has none of the threads; their state, maybe mid-wait, is left behind.
    void restart_after_fork() {
        helpers_.clear();
        state_ = nullptr;
    }

    // To be called at the start of a batch of runs: brings the threads back after a fork, and to the
    // scheduling class of the caller, lest a real-time loop wait for ordinary threads.
    void prepare() {
        if (!state_) start();
#ifdef __linux__
        int policy = sched_getscheduler(0);
        sched_param param{};
        sched_getparam(0, &param);
        if (policy == policy_ && param.sched_priority == priority_) return;
        policy_ = policy, priority_ = param.sched_priority;
        for (int i = 0; i + 1 < threads_; i++)
            if (pid_t tid = state_->tid[i].load()) sched_setscheduler(tid, policy, &param);
#endif
    }

    // Do tasks 0 .. count - 1 (at most 65,535) on all threads; returns when the last is done.
    void run(int count, Task task, void *context) {
        State &s = *state_;
        s.task.store(task, std::memory_order_relaxed);
        s.context.store(context, std::memory_order_relaxed);
        s.done.store(0, std::memory_order_relaxed);
        uint64_t generation = (s.ticket.load(std::memory_order_relaxed) >> 32) + 1;
        s.ticket.store(generation << 32 | (uint64_t)count << 16, std::memory_order_seq_cst);
        if (count > 1 && s.sleepers.load(std::memory_order_seq_cst) > 0) {
            std::lock_guard<std::mutex> hold(s.lock);
            s.wake.notify_all();
        }
        work(s, 0);
        for (int spins = 0; s.done.load(std::memory_order_acquire) < count; spins++)
            if (spins < 4000) pause();
            else rest();  // sleeping lets even a thread of a lower class finish its task here
    }

  private:
    struct State {
        alignas(64) std::atomic<uint64_t> ticket{0};
        alignas(64) std::atomic<int> done{0};
        alignas(64) std::atomic<Task> task{nullptr};
        std::atomic<void *> context{nullptr};
        std::atomic<int> sleepers{0};
        std::atomic<bool> stop{false};
        std::mutex lock;
        std::condition_variable wake;
        std::atomic<pid_t> tid[MAX_THREADS] = {};
    };
    struct Start {
        State *state;
        int thread;
    };

    static void pause() {
#if defined(__x86_64__) || defined(__i386__)
        __builtin_ia32_pause();
#elif defined(__aarch64__)
        __asm__ volatile("yield");
#endif
    }

    static void rest() {
        timespec brief{0, 20000};
        nanosleep(&brief, nullptr);
    }

    static void work(State &s, int thread) {
        uint64_t ticket = s.ticket.load(std::memory_order_acquire);
        for (;;) {
            int count = ticket >> 16 & 0xffff, next = ticket & 0xffff;
            if (next >= count) return;
            Task task = s.task.load(std::memory_order_relaxed);
            void *context = s.context.load(std::memory_order_relaxed);
            // Success means that this generation is still running, so what was read belongs to it.
            if (!s.ticket.compare_exchange_weak(ticket, ticket + 1, std::memory_order_acq_rel)) continue;
            task(context, next, thread);
            s.done.fetch_add(1, std::memory_order_release);
            ticket = s.ticket.load(std::memory_order_acquire);
        }
    }

    static void *serve(void *argument) {
        Start start = *static_cast<Start *>(argument);
        delete static_cast<Start *>(argument);
        State &s = *start.state;
#ifdef __linux__
        s.tid[start.thread - 1].store((pid_t)syscall(SYS_gettid));
#endif
        uint64_t seen = 0;
        while (!s.stop.load(std::memory_order_relaxed)) {
            work(s, start.thread);
            seen = s.ticket.load(std::memory_order_seq_cst) >> 32;
            auto changed = [&] {
                return s.ticket.load(std::memory_order_seq_cst) >> 32 != seen || s.stop.load();
            };
            auto until = std::chrono::steady_clock::now() + std::chrono::microseconds(50);
            bool again = false;
            while (!(again = changed()) && std::chrono::steady_clock::now() < until)
                for (int i = 0; i < 16; i++) pause();
            if (again) continue;
            std::unique_lock<std::mutex> hold(s.lock);
            s.sleepers.fetch_add(1, std::memory_order_seq_cst);
            s.wake.wait(hold, changed);
            s.sleepers.fetch_sub(1, std::memory_order_seq_cst);
        }
        return nullptr;
    }

    void start() {
        state_ = new State;
        sigset_t all, before;  // signals belong to the interpreter's threads
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &before);
        for (int thread = 1; thread < threads_; thread++) {
            pthread_t helper;
            auto *argument = new Start{state_, thread};
            if (pthread_create(&helper, nullptr, serve, argument) == 0) helpers_.push_back(helper);
            else delete argument;  // the caller does the work of a thread that cannot be had
        }
        pthread_sigmask(SIG_SETMASK, &before, nullptr);
    }

    int threads_;
    int policy_ = -1, priority_ = -1;
    State *state_ = nullptr;
    std::vector<pthread_t> helpers_;
};
