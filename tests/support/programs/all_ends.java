import java.util.ArrayList;
import java.util.List;
import java.util.Scanner;

public class Main {
  public static void main(String[] arguments) throws Exception {
    String word = new Scanner(System.in).next();
    List<int[]> kept = new ArrayList<>();
    switch (word) {
      case "loop":
        for (int n = 0;; n++) if (n < 0) kept.clear();
      case "memory":
        for (;;) kept.add(new int[1 << 20]);
      case "flood":
        for (;;) System.out.println("x".repeat(1000));
      case "fail":
        throw new IllegalStateException("no");
      case "crash":
        Runtime.getRuntime().halt(134);
      default:
        System.out.println(word.equals("wrong") ? word : new StringBuilder(word).reverse());
    }
  }
}
