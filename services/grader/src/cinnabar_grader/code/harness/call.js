// Evaluates one call in a student's program; runs in the box, knows no expected value.
//
// Standard input: {"call", "nonce"}. Standard output: a line that begins with the nonce, then the record, which
// is one of {"value": …}, {"error": [type, text]}, {"compile": text} and {"broken": text}. What the program
// prints goes to standard error.
'use strict';
const fs = require('fs');
const vm = require('vm');
const { Console } = require('console');
const DEPTH = 60;
const {call, nonce} = JSON.parse(fs.readFileSync(0, 'utf8'));
const written = fs.writeSync, stringify = JSON.stringify, leave = process.reallyExit.bind(process);

function encode(value, depth) {
  if (value === null || typeof value === 'boolean' || typeof value === 'string') return value;
  if (depth > DEPTH) throw new RangeError('the value is nested too deep');
  switch (typeof value) {
    case 'undefined': return ['u'];
    case 'bigint': return ['i', value.toString(16)];
    case 'number':
      if (Number.isNaN(value)) return ['f', 'nan'];
      if (!Number.isFinite(value)) return ['f', value > 0 ? 'inf' : '-inf'];
      return ['f', String(value)];
    case 'object': break;
    default: return ['o', typeof value, String(value).slice(0, 300)];
  }
  if (Array.isArray(value) || (ArrayBuffer.isView(value) && !(value instanceof DataView))) {
    return ['l', ...Array.from(value, (item) => encode(item, depth + 1))];
  }
  if (value instanceof Map || value instanceof Set || value instanceof Date || value instanceof RegExp
      || value instanceof Error || value instanceof WeakMap || value instanceof WeakSet) {
    return ['o', value.constructor.name, String(value).slice(0, 300)];
  }
  return ['d', ...Object.entries(value).map(([key, item]) => [key, encode(item, depth + 1)])];
}

function say(record) {
  let text = Buffer.from(`\n${nonce}${stringify(record)}\n`);
  while (text.length) {
    try {
      text = text.subarray(written(1, text));
    } catch (error) {
      if (error.code !== 'EAGAIN') throw error;
    }
  }
  leave(0);  // not what the program still waits for
}

function told(error) {
  const name = error instanceof Error ? error.constructor.name : typeof error;
  let text = '';
  try {
    text = error instanceof Error ? String(error.stack || error.message) : String(error);
    text = text.split('\n').filter((line) => !/^\s+at .*(\[eval\]|node:)/.test(line)).join('\n');
  } catch { /* an error that cannot be told */ }
  say({error: [name, text.slice(0, 4000)]});
}

let expression, program;
try {
  expression = new vm.Script(`(${call}\n)`, {filename: 'call'});
} catch (error) {
  say({broken: String(error.message)});
}
try {
  program = new vm.Script(fs.readFileSync('main.js', 'utf8'), {filename: 'main.js'});
} catch (error) {
  const stack = String(error.stack).split('\n    at ')[0];
  say({compile: stack.slice(0, 4000)});
}
process.stdout.write = process.stderr.write.bind(process.stderr);
globalThis.console = new Console(process.stderr);
globalThis.module = {exports: {}};
globalThis.exports = globalThis.module.exports;
globalThis.require = require('module').createRequire(process.cwd() + '/main.js');
process.argv = [process.argv[0], 'main.js'];
process.on('uncaughtException', told);
process.on('unhandledRejection', told);
try {
  program.runInThisContext();
  Promise.resolve(expression.runInThisContext()).then((value) => say({value: encode(value, 0)}), told);
} catch (error) {
  told(error);
}
