// A static C++ program with threads, for tests/tests/static_programs.rs: each line that it prints is right for every order of its threads.
// Built by the scenario with the host's g++.
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <fstream>
#include <future>
#include <iostream>
#include <mutex>
#include <numeric>
#include <shared_mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace {

thread_local int visits = 0;

// Workers take numbers from a queue until it is closed.
long queue_of_numbers()
{
	std::mutex lock;
	std::condition_variable filled, emptied;
	std::deque<int> queue;
	bool closed = false;
	std::atomic<long> sum{0}, taken{0};
	std::vector<std::thread> workers;
	for (int i = 0; i < 4; i++)
		workers.emplace_back([&] {
			for (;;) {
				std::unique_lock<std::mutex> held(lock);
				filled.wait(held, [&] { return closed || !queue.empty(); });
				if (queue.empty())
					break;
				int number = queue.front();
				queue.pop_front();
				emptied.notify_one();
				held.unlock();
				sum += number;
				visits++;
			}
			taken += visits;
		});
	for (int i = 1; i <= 2000; i++) {
		std::unique_lock<std::mutex> held(lock);
		emptied.wait(held, [&] { return queue.size() < 16; });
		queue.push_back(i);
		filled.notify_one();
	}
	{
		std::lock_guard<std::mutex> held(lock);
		closed = true;
	}
	filled.notify_all();
	for (auto &worker : workers)
		worker.join();
	return taken == 2000 ? sum.load() : -1;
}

long deep(int depth)
{
	std::string local(depth + 40, 'x');
	if (depth == 0)
		throw std::runtime_error("from below");
	return deep(depth - 1) + local.size();
}

} // namespace

int main()
{
	std::ios::sync_with_stdio(false);
	std::cout << "queue " << queue_of_numbers() << std::endl;

	std::vector<std::future<long>> parts;
	for (long part = 0; part < 8; part++)
		parts.push_back(std::async(std::launch::async, [part] {
			std::vector<long> numbers(10000);
			std::iota(numbers.begin(), numbers.end(), part * 10000);
			return std::accumulate(numbers.begin(), numbers.end(), 0L);
		}));
	long sum = 0;
	for (auto &part : parts)
		sum += part.get();
	std::cout << "async " << sum << std::endl;

	auto failing = std::async(std::launch::async, [] { return deep(20); });
	try {
		failing.get();
	} catch (const std::runtime_error &error) {
		std::cout << "exception " << error.what() << std::endl;
	}

	std::shared_mutex shared;
	long value = 0, torn = 0;
	std::vector<std::thread> threads;
	for (int i = 0; i < 4; i++)
		threads.emplace_back([&, i] {
			for (int round = 0; round < 500; round++)
				if (i == 0) {
					std::unique_lock<std::shared_mutex> held(shared);
					value++;
					value++;
				} else {
					std::shared_lock<std::shared_mutex> held(shared);
					torn += value & 1;
				}
		});
	for (auto &thread : threads)
		thread.join();
	std::cout << "shared " << value << " " << torn << std::endl;

	std::mutex lock;
	std::condition_variable never;
	std::unique_lock<std::mutex> held(lock);
	auto before = std::chrono::steady_clock::now();
	auto verdict = never.wait_for(held, std::chrono::milliseconds(5), [] { return false; });
	bool late = std::chrono::steady_clock::now() - before >= std::chrono::milliseconds(5);
	std::cout << "timeout " << !verdict << " " << late << std::endl;

	{
		std::ofstream file("/tmp/lines");
		for (int i = 0; i < 1000; i++)
			file << "line " << i << "\n";
	}
	std::ifstream file("/tmp/lines");
	std::string line;
	int lines = 0;
	while (std::getline(file, line))
		lines++;
	std::cout << "lines " << lines << " " << line.size() << " " << (std::thread::hardware_concurrency() > 0) << std::endl;
	return 0;
}
