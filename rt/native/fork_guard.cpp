#include "fork_guard.h"

#include <pthread.h>

#include <algorithm>
#include <vector>

namespace {

std::mutex registry_lock;
std::vector<ForkGuard *> &registry() {
    static auto *guards = new std::vector<ForkGuard *>;
    return *guards;
}

}  // namespace

void before_fork() {
    registry_lock.lock();
    for (ForkGuard *guard : registry()) guard->lock_.lock();
}
void after_fork_in_parent() {
    for (ForkGuard *guard : registry()) guard->lock_.unlock();
    registry_lock.unlock();
}
void after_fork_in_child() {
    for (ForkGuard *guard : registry()) {
        guard->workers_.restart_after_fork();
        guard->lock_.unlock();
    }
    registry_lock.unlock();
}

ForkGuard::ForkGuard(std::mutex &lock, Workers &workers) : lock_(lock), workers_(workers) {
    static std::once_flag once;
    std::call_once(once, [] { pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child); });
    std::lock_guard<std::mutex> hold(registry_lock);
    registry().push_back(this);
}

ForkGuard::~ForkGuard() {
    std::lock_guard<std::mutex> hold(registry_lock);
    auto &guards = registry();
    guards.erase(std::find(guards.begin(), guards.end(), this));
}
