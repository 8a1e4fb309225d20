#include <sys/ptrace.h>

#include <algorithm>
#include <iostream>
#include <stdexcept>
#include <string>
#include <vector>

int main() {
  std::string word;
  std::cin >> word;
  if (word == "loop") {
    for (volatile int n = 0;; n = n + 1) {
    }
  } else if (word == "memory") {
    std::vector<std::string> kept;
    for (;;) kept.emplace_back(1 << 20, 'x');
  } else if (word == "flood") {
    for (;;) std::cout << std::string(1000, 'x');
  } else if (word == "fail") {
    return 3;
  } else if (word == "crash") {
    throw std::runtime_error("no");
  } else if (word == "forbidden") {
    ptrace(PTRACE_TRACEME, 0, 0, 0);
  } else {
    if (word != "wrong") std::reverse(word.begin(), word.end());
    std::cout << word << std::endl;
  }
}
