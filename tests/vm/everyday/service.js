const http = require("http");
const { execFileSync } = require("child_process");

// Often enough that the compiler takes it.
function sum(n) {
    let all = 0;
    for (let i = 0; i < n; i++) all = (all + i * 3) % 1000003;
    return all;
}
for (let turn = 0; turn < 2000; turn++) sum(1000);

// The smallest WebAssembly module that adds two numbers.
const code = Buffer.from("0061736d0100000001070160027f7f017f030201000707010361646400000a09010700200020016a0b", "hex");
const { add } = new WebAssembly.Instance(new WebAssembly.Module(code)).exports;

http.createServer((_, answer) => {
    const six = Number(execFileSync("sh", ["-c", "echo 6"]));
    answer.end(`node answers ${add(six * 6, 6)}`);
}).listen(Number(process.argv[2]), "127.0.0.1");
