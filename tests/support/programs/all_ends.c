#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>

int main(void) {
  char word[64] = "";
  if (scanf("%63s", word) != 1) return 9;
  if (!strcmp(word, "loop")) {
    for (volatile int n = 0;; n++);
  } else if (!strcmp(word, "memory")) {
    for (;;) memset(malloc(1 << 20), 1, 1 << 20);
  } else if (!strcmp(word, "flood")) {
    for (;;) puts("xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx");
  } else if (!strcmp(word, "fail")) {
    return 3;
  } else if (!strcmp(word, "crash")) {
    *(volatile int *)0 = 1;
  } else if (!strcmp(word, "forbidden")) {
    ptrace(PTRACE_TRACEME, 0, 0, 0);
  } else {
    if (strcmp(word, "wrong"))
      for (int n = (int)strlen(word) - 1; n >= 0; n--) putchar(word[n]);
    else
      fputs(word, stdout);
    putchar('\n');
  }
  return 0;
}
