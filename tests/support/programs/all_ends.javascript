const word = require('fs').readFileSync(0, 'utf8').trim();
if (word === 'loop') {
  for (;;);
} else if (word === 'memory') {
  const kept = [];
  for (;;) kept.push(new Array(100000).fill(kept.length));
} else if (word === 'flood') {
  for (;;) require('fs').writeSync(1, 'x'.repeat(1000));
} else if (word === 'fail') {
  throw new Error('no');
} else if (word === 'crash') {
  process.abort();
} else {
  console.log(word === 'wrong' ? word : [...word].reverse().join(''));
}
