// Forking while an engine computes: the fork waits, so that the child finds no lock held by a thread that
// it lacks; there the engine's workers start anew when they are next needed.
#pragma once
#include <mutex>

#include "workers.h"

// The last member of an engine, so that it is gone before what it guards.
class ForkGuard {
  public:
    ForkGuard(std::mutex &lock, Workers &workers);
    ~ForkGuard();
    ForkGuard(const ForkGuard &) = delete;

  private:
    friend void before_fork();
    friend void after_fork_in_parent();
    friend void after_fork_in_child();
    std::mutex &lock_;
    Workers &workers_;
};
