/* The program that Debian's gdb debugs in tests/tests/debian_programs.rs: a function called three times, a variable that one line changes,
   a second thread, and an exit code. Built by the scenario with the host's gcc, dynamic and position-independent. */
#include <pthread.h>
#include <stdio.h>

volatile long counter = 40;

__attribute__((noinline)) static long work(long value)
{
	counter += value;
	return counter;
}

static void *second(void *argument)
{
	return (void *)(work((long)argument) + 1);
}

int main(void)
{
	pthread_t thread;
	void *result;

	printf("first %ld\n", work(2));
	pthread_create(&thread, NULL, second, (void *)3L);
	pthread_join(thread, &result);
	printf("second %ld\n", (long)result);
	return (int)work(-38);
}
