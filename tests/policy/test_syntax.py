"""The readers of other languages: for each, code that a rule finds and code alike that it does not, and what is known
to get past them."""

from __future__ import annotations

import pytest

from cellgate.policy import trees
from cellgate.policy.facts import Bounds, Kind, Seen
from cellgate.policy.grammars import GRAMMARS
from cellgate.policy.judge import READERS, judge
from cellgate.policy.policies import POLICIES, Policy
from cellgate.policy.rules import RULES
from cellgate.policy.verdicts import Severity

BOUNDS = Bounds(nesting=100, literal_bytes=1 << 20)
EVERYTHING = Policy("everything", dict.fromkeys(RULES, Severity.NOTE))

# language -> rule -> code in which it is found. Of Go, Java, Rust, C and C++ only the line that matters is shown.
FIRES: dict[str, dict[str, list[str]]] = {
    "javascript": {
        "process": [
            "require('child_process').exec('ls')",
            "const {exec: e} = require('node:child_process'); e('ls')",
            "import {spawn as s} from 'child_process'; s('ls')",
            "import * as cp from 'child_process'",
            "const cp = require('child_' + 'process')",
            "const cp = await import('child_process'); cp['ex' + 'ec']('x')",
            "const f = require; f('child_process')",
            "new Deno.Command('ls')",
        ],
        "file_access": ["require('fs').readFileSync('x')", "import fs from 'node:fs/promises'; fs.readFile('x')"],
        "file_change": ["const {rmSync} = require('fs'); rmSync('x')", "import fs from 'fs'; fs.promises.unlink('x')"],
        "network": [
            "fetch('http://a')",
            "globalThis.fetch(u)",
            "new WebSocket(u)",
            "import axios from 'axios'",
            "[u].map(fetch)",
        ],
        "dynamic_code": [
            "eval(x)",
            "(0, eval)('1')",
            "const e = eval; e(x)",
            "new Function('return 1')()",
            "globalThis['ev' + 'al'](x)",
            "window.eval(x)",
            "\\u0065val(x)",
            "let g = globalThis; g.eval(x)",
            "function f() { return h(1) } const h = eval",
            "import vm from 'vm'; vm.runInThisContext(x)",
            "[eval][0](x)",
            "setTimeout('eval(x)', 1)",
        ],
        "dynamic_import": ["require(x)", "import(x)", "process.mainModule.require('fs')"],
        "computed_attribute": ["globalThis[x](1)", "const fs = require('fs'); fs[name]('y')", "process[x]"],
        "introspection": ["this.constructor.constructor('return process')()", "({}).__proto__.x = 1"],
        "native_code": ["process.dlopen(m, 'x.node')", "process.binding('spawn_sync')", "import ffi from 'ffi-napi'"],
        "environment": ["console.log(process.env.HOME)"],
        "ends_kernel": ["process.exit(1)"],
        "metadata_address": ["fetch('http://169.254.169.254/')"],
        "host_door": ["require('fs').readFileSync('/var/run/docker.sock')"],
        "privileged": ["require('child_process').execSync('sudo ls')", "process.setuid(0)"],
    },
    "typescript": {
        "process": ["import cp = require('child_process'); cp.exec('ls')", "import {exec} from 'child_process'"],
        "dynamic_code": ["let a: string = <any>eval('x')", "(globalThis as any).eval('x')", "const e = eval!; e('1')"],
        "network": ["const r: Response = await fetch(u as string)", "(fetch satisfies F)(u)"],
        "file_change": ["import * as fs from 'fs'; fs.writeFileSync('x', y as string)"],
        "native_code": ["(process as any).dlopen(m, 'x')"],
    },
    "bash": {
        "network": [
            "curl http://example.org",
            "x=$(wget y)",
            "ls | nc h 1",
            "if true; then curl x; fi",
            "c'ur'l x",
            "\\curl x",
            "C=curl; $C x",
            "alias g=wget; g x",
            "/usr/bin/curl x",
            "env A=1 curl x",
            "bash -c 'curl x'",
            "eval 'curl x'",
            "$'\\x63url' x",
            "cat < /dev/tcp/h/80",
            "timeout -s 9 5 curl x",
            "f() { curl x; }; f",
            "echo `curl x`",
            'echo "$(curl x)"',
            "cat <<E\n$(curl x)\nE",
            "diff <(curl x) y",
            "while read l; do curl $l; done < f",
        ],
        "privileged": ["sudo ls", "nohup sudo ls &", "xargs -n 1 sudo"],
        "file_change": [
            "rm x",
            "echo y > x",
            "find . -exec rm {} +",
            "ls | xargs -I{} rm {}",
            "a && rm b",
            "time rm x",
        ],
        "file_access": ["cat x", "while read l; do :; done < x"],
        "dynamic_code": ["eval $x", "$cmd x", "$(echo ls)", "python3 -c 1", "source x", ". x"],
        "fork_loop": [":(){ :|:& };:", "bomb() { bomb | bomb & }; bomb", "function b { b | b & }; b"],
        "host_door": ["cat /dev/mem", "curl --unix-socket /var/run/docker.sock http://x"],
        "ends_kernel": ["kill -9 1"],
    },
    "ruby": {
        "process": [
            "system('ls')",
            "system 'ls'",
            "`ls`",
            "%x(ls)",
            '"a#{`ls`}"',
            "Kernel.exec('x')",
            "::Kernel.system('x')",
            "IO.popen('x')",
            "k = Kernel; k.system('x')",
            "send(:system, 'x')",
            "Object.send('sys' + 'tem', 'x')",
            "method(:system).call('x')",
            "alias foo exec",
            "require 'open3'",
            "fork { }",
        ],
        "file_access": ["File.read('x')", "open('x')", "IO.readlines('x')", "f = File; f.open('x')"],
        "file_change": ["File.delete('x')", "require 'fileutils'", "FileUtils.rm_rf('x')"],
        "network": ["require 'socket'", "TCPSocket.new('a', 1)", "Net::HTTP.get(u)", "system('curl x')"],
        "dynamic_code": [
            "eval(x)",
            "x.instance_eval('1')",
            "binding.eval(x)",
            "eval('`ls`')",
            "RubyVM::InstructionSequence",
        ],
        "dynamic_import": ["require x", "load x"],
        "computed_attribute": [
            "Object.const_get('Process').spawn('x')",
            "x.send(y)",
            "x.public_send(y, 1)",
            "Object.const_get(x)",
        ],
        "deserialize": ["Marshal.load(x)", "YAML.load(x)"],
        "native_code": ["require 'fiddle'", "Fiddle.dlopen(nil)"],
        "introspection": ["ObjectSpace.each_object"],
        "environment": ["ENV['HOME']"],
        "ends_kernel": ["exit!", "Process.kill(9, 1)"],
    },
    "go": {
        "process": [
            'import "os/exec"\nfunc f() { exec.Command("ls") }',
            'import e "os/exec"\nfunc f() { e.Command("ls").Run() }',
            'import . "os/exec"',
            'import "os/exec"\nfunc f() { x := exec.Cmd{Path: "ls"} }',
            'import "os"\nfunc f() { g := os.StartProcess; g("x", nil, nil) }',
        ],
        "file_access": ['import "os"\nfunc f() { os.Open("x") }', 'import x "os"\nvar f = x.ReadFile'],
        "file_change": ['import "os"\nfunc f() { os.RemoveAll("x") }'],
        "network": ['import "net"', 'import ( "fmt"; h "net/http" )\nfunc f() { h.Get(u) }'],
        "native_code": ['import "C"', 'import "unsafe"', 'import "syscall"\nfunc f() { syscall.Syscall(1, 2, 3, 4) }'],
        "introspection": ['import "reflect"'],
        "dynamic_code": ['import "plugin"'],
        "environment": ['import "os"\nfunc f() { os.Getenv("X") }'],
        "ends_kernel": ['import "os"\nfunc f() { os.Exit(1) }'],
        "privileged": ['import "os/exec"\nfunc f() { exec.Command("sh", "-c", "sudo ls") }'],
    },
    "rust": {
        "process": [
            "use std::process::Command;",
            'fn f() { std::process::Command::new("ls"); }',
            'use std::{process as p, fmt}; fn f() { p::Command::new("ls").output(); }',
            'fn f() { println!("{:?}", std::process::Command::new("ls")); }',
            'type C = std::process::Command; fn f() { C::new("ls"); }',
        ],
        "file_access": [
            'fn f() { std::fs::read("x"); }',
            'use std::fs::File as F; fn f() { F::open("x"); }',
            'include_str!("x");',
        ],
        "file_change": ['fn f() { let r = std::fs::remove_file; r("x"); }'],
        "network": ["use std::net::{TcpStream, self};", 'fn f() { tokio::net::TcpStream::connect("x"); }'],
        "native_code": [
            "fn f() { unsafe { g() } }",
            'extern "C" { fn system(c: *const i8); }',
            'fn f() { asm!("nop"); }',
            "extern crate libc;",
        ],
        "environment": ['fn f() { std::env::var("X"); }'],
        "ends_kernel": ["use std::process::exit;", "fn f() { std::process::abort(); }"],
        "privileged": ['fn f() { std::process::Command::new("sudo"); }'],
    },
    "java": {
        "process": [
            'Runtime.getRuntime().exec("ls");',
            'java.lang.Runtime.getRuntime().exec("ls");',
            'Runtime r = Runtime.getRuntime(); r.exec("ls");',
            'var b = new ProcessBuilder("ls");',
            'class A { Runtime r; void f() { this.r.exec("ls"); } }',
            'class A { void f(Runtime r) { r.exec("ls"); } }',
        ],
        "file_access": [
            'Files.readString(Path.of("x"));',
            'new java.io.FileReader("x");',
            "var f = Files::readAllLines;",
        ],
        "file_change": ["Files.delete(p);", 'import java.io.*; var w = new FileWriter("x");'],
        "network": ["import java.net.Socket;", 'new URL("http://x").openStream();', "List<java.net.Socket> l;"],
        "dynamic_import": ['Class.forName("x");', "class L extends ClassLoader { }"],
        "introspection": ['x.getClass().getDeclaredMethod("y");', "m.setAccessible(true);"],
        "dynamic_code": ["new ScriptEngineManager();", "import javax.script.ScriptEngineManager;"],
        "native_code": ['System.loadLibrary("x");', "import sun.misc.Unsafe;"],
        "deserialize": ["new ObjectInputStream(s).readObject();"],
        "ends_kernel": ["System.exit(1);", "Runtime.getRuntime().halt(1);"],
        "environment": ['System.getenv("X");'],
        "privileged": ['Runtime.getRuntime().exec("sudo " + "ls");'],
    },
    "c": {
        "process": [
            'int main() { system("ls"); }',
            "int (*f)(const char*) = system;",
            "#define S system",
            '#define RUN(x) popen(x, "r")',
            "int main() { (*(execve))(p, a, e); }",
            "int main() { if (fork()) ; }",
            "void f(void) { run_with(system); }",
        ],
        "file_access": ['int main() { fopen("x", "r"); }', "#include <fcntl.h>"],
        "file_change": ['int main() { unlink("x"); }'],
        "network": ["#include <sys/socket.h>", "int main() { connect(s, a, l); }"],
        "native_code": [
            'int main() { asm("nop"); }',
            "int main() { syscall(59, a, b); }",
            'int main() { dlsym(0, "system"); }',
        ],
        "environment": ['int main() { getenv("X"); }'],
        "ends_kernel": ["int main() { kill(1, 9); }", "int main() { abort(); }"],
        "privileged": ["int main() { setuid(0); }", 'int main() { system("sudo " "ls"); }'],
    },
    "cpp": {
        "process": [
            'int main() { std::system("ls"); }',
            'int main() { ::system("ls"); }',
            "auto f = &std::system;",
            "using std::system; int main() { system(x); }",
            "int main() { std::invoke(system, x); }",
        ],
        "file_access": [
            'int main() { std::ifstream f("x"); }',
            "void f(std::ifstream& s);",
            "std::vector<std::fstream> v;",
        ],
        "file_change": [
            'int main() { std::ofstream f("x"); }',
            'namespace fs = std::filesystem; int main() { fs::remove("x"); }',
            'int main() { new std::ofstream("x"); }',
        ],
        "network": ["#include <boost/asio.hpp>", "using namespace boost::asio;", "int main() { ::socket(1, 2, 3); }"],
        "native_code": ['int main() { asm("nop"); }', 'int main() { dlopen("x", 1); }'],
    },
    "r": {
        "process": [
            "system('ls')",
            "base::system('ls')",
            "x <- system; x('ls')",
            "system -> y; y('ls')",
            "do.call('system', list('ls'))",
            "do.call(system, list('ls'))",
            "`system`('ls')",
            "'system'('ls')",
            "match.fun('system')('ls')",
            "sapply(x, system)",
            "'ls' |> system()",
            "parallel::mclapply(x, f)",
        ],
        "file_access": ["readLines('x')", "read.csv('x')", "readr::read_csv('x')", "file('x')"],
        "file_change": ["unlink('x')", "writeLines('a', 'x')", "file.remove('x')"],
        "network": [
            "library(httr)",
            "require('curl')",
            "utils::download.file(u, 'x')",
            "httr::GET(u)",
            "install.packages('x')",
        ],
        "dynamic_code": ["eval(parse(text = x))", "source('x')", "base::eval(y)"],
        "computed_attribute": ["get(paste0('sys', 'tem'))('ls')", "do.call(paste0('a', b), l)"],
        "dynamic_import": ["library(f(x))", "loadNamespace(g())"],
        "native_code": ["dyn.load('x.so')", ".Call('f')", "Rcpp::cppFunction(x)"],
        "deserialize": ["readRDS('x')"],
        "introspection": ["globalenv()", "asNamespace('base')"],
        "environment": ["Sys.getenv('X')"],
        "ends_kernel": ["q()", "quit('no')"],
        "privileged": ["system('sudo ls')"],
    },
}

# language -> code in which none of these categories is found.
SUSPECT = {"programs", "remote", "files", "dynamic", "introspection", "native", "host"}
SILENT: dict[str, list[str]] = {
    "javascript": [
        "// eval(x); require('child_process')",
        "const s = 'eval(x)'; console.log(`fetch(u)`)",
        "const o = {eval: 1, fetch: 2}; o.fetch",
        "function f(fetch) { return [fetch] }",
        "const net = 3; net + 1",
        "x.exec(/a/); /eval(1)/.test(y)",
        "import {x} from './mine.js'; x()",
        "const a = [1, 2]; a[i]; obj[key] = a[0]",
        "function exec(x) { return x } exec('ls')",
        "setTimeout(() => 1, 5)",
        "function fetch(x) { return x } fetch(1)",
        "class A { eval() { } } new A().evaluate()",
    ],
    "typescript": [
        "import type {Socket} from 'net'; let s: Socket",
        "interface A { exec(x: string): void }",
        "enum E { eval, fetch }",
        "type F = typeof x; const s: string = 'eval(1)'",
    ],
    "bash": [
        "echo curl rm sudo",
        "# curl x",
        "echo 'curl x; rm y'",
        "x='rm y'",
        "for i in curl wget; do echo $i; done",
        "curl() { echo mine; }; curl x",
        "ls_count=1; echo $ls_count",
        "echo x > /dev/null 2>&1",
        "printf '%s' 'eval'",
        "cat_food=1; [ $cat_food -gt 0 ] && echo y",
    ],
    "ruby": [
        "# system('ls')",
        "puts 'system(`ls`)'",
        "x = {system: 1}; puts x",
        "def system(x); x; end\nsystem('ls')",
        "a.each { |open| puts open }",
        "names.map(&:upcase).select { |n| n }",
        "File.join('a', 'b')",
        "x.system_name; y.executed",
    ],
    "go": [
        'import "fmt"\nfunc main() { fmt.Println("os.Open", `exec.Command`) }',
        '// import "os/exec"\npackage main',
        'import "strings"\nfunc f(exec string) { exec = strings.ToUpper(exec) }',
        "type T struct { Open func() }\nfunc f(t T) { t.Open() }",
        'import "net/url"\nfunc f() { url.Parse("x") }',
        'import "example.org/mine/exec"\nfunc f() { exec.Command("x") }',
        'import "os"\nfunc f() { fmt.Fprintln(os.Stderr, os.Args) }',
    ],
    "rust": [
        '// std::fs::read("x")\nfn f() { println!("std::process::Command"); }',
        "use std::collections::HashMap; fn f() { let fs = 1; fs + 1; }",
        "fn read(x: u8) -> u8 { x } fn f() { read(1); }",
        "mod process { pub fn id() {} } fn f() { crate::process::id(); }",
        "fn f() -> Option<u8> { v.iter().map(|x| x + 1).max() }",
    ],
    "java": [
        '// Runtime.getRuntime().exec("x")\nint x = 1;',
        'System.out.println("new Socket()");',
        "import com.me.Socket; class A { Socket s = new Socket(); }",
        "int n = Runtime.getRuntime().availableProcessors();",
        'class A { void exec(String s) { } void g() { exec("ls"); } }',
        "var m = new java.util.HashMap<String, Integer>(); m.get(1);",
    ],
    "c": [
        '/* system("ls") */ int main() { printf("system(ls)"); }',
        "#include <stdio.h>\n#include <math.h>\nint main() { return sqrt(4); }",
        "int main() { int link = 3, open = 4; return link + open; }",
        "int f(char *read) { return *read; }",
        "struct s { int connect; }; int g(struct s *p) { return p->connect; }",
        "int remove_all(int x) { return x; } int main() { remove_all(1); }",
        "int send(int x) { return x; } int main() { send(1); }",
    ],
    "cpp": [
        '// std::system("ls")\nint main() { std::cout << "system"; }',
        "int main() { v.erase(std::remove(v.begin(), v.end(), 1), v.end()); }",
        "struct S { void open(int); }; int main() { S s; s.open(1); }",
        "#include <vector>\ntemplate<class T> T f(T open) { return open; }",
        'auto s = R"(system("ls"))";',
        "auto f = std::bind(g, 1);",
    ],
    "r": [
        "# system('ls')",
        "print('system(ls)')",
        "system.time(sum(1:10))",
        "f <- function(url, file) { url + file }",
        "df$file; x[['system']]",
        "r\"(system('ls'))\"",
        "do.call(rbind, list(1, 2))",
        "file.path('a', 'b')",
        "eval_count <- 1; eval_count",
    ],
}

# What is known to get past the readers; the sandbox holds it all the same. A row that is found moves up.
MISSED: dict[str, dict[str, list[str]]] = {
    "javascript": {
        "dynamic_code": [
            "const f = ['ev', 'al'].join(''); globalThis[`${f}`.trim()](x), top.x",  # only the computed name is seen
            "Reflect.apply(...[({}).valueOf, null, []])",
        ],
        "process": ["const m = 'child_process'; process.getBuiltinModule.call(null, m)", "with (cp) { exec('ls') }"],
        "network": ["document.createElement('img').src = 'http://a'"],
    },
    "typescript": {"network": ["new Image().src = 'http://a'"]},
    "bash": {
        "network": [
            "c{u,}rl x; x=cu; ${x}${y}rl",
            "echo Y3VybCB4 | base64 -d | tee f",
            "printf -v c curl; hash -p /x $((1)) z",
        ],
        "fork_loop": ["a() { b & b; }; b() { a & a; }; a"],
    },
    "ruby": {"process": ["[:system].each { |m| Kernel.instance_exec(m) { } }", "DATA.each_line"]},
    "go": {
        "process": ["//go:linkname f os/exec.Command\nfunc f()"],
        "file_access": ['import . "os"\nfunc f() { ReadFile("x") }'],
    },
    "rust": {"file_access": ['use std::*; fn f() { fs::read("x"); }'], "process": ["mod m { include_macro!(); }"]},
    "java": {"process": ['\\u0052untime.getRuntime().exec("x");', "import com.other.*; Helper.run();"]},
    "c": {
        "process": [
            "#define G(a, b) a##b\nint main() { G(sys, tem)(x); }",
            "int main() { ((int (*)(char*))0x1234)(x); }",
        ]
    },
    "cpp": {
        "file_change": [
            'int main() { std::remove("x"); }',
            'using namespace std::filesystem; int f() { remove_all("x"); }',
        ]
    },
    "r": {"process": ["Reduce(function(f, x) f(x), list(get0), x)", "f <- body; environment"]},
}


def found(code: str, language: str) -> set[str]:
    return {finding.rule for finding in judge(code, language, EVERYTHING).findings}


def rows(table: dict[str, dict[str, list[str]]]) -> list[tuple[str, str, str]]:
    return [
        (language, rule, code) for language, rules in table.items() for rule, codes in rules.items() for code in codes
    ]


@pytest.mark.parametrize("language, rule, code", rows(FIRES))
def test_a_rule_is_found(language, rule, code):
    assert rule in found(code, language)


@pytest.mark.parametrize("language, code", [(language, code) for language, codes in SILENT.items() for code in codes])
def test_what_only_looks_like_it_is_not_found(language, code):
    assert not {rule for rule in found(code, language) if RULES[rule].category in SUSPECT}


@pytest.mark.parametrize("language, rule, code", rows(MISSED))
def test_what_is_listed_as_missed_is_missed(language, rule, code):
    """So that the list stays true; when this fails, a reader has learned something."""
    assert rule not in found(code, language)


def test_every_language_has_examples_of_each_kind():
    assert {"python", *FIRES} == set(READERS)
    assert set(FIRES) == set(SILENT) == set(MISSED) == {"bash", *GRAMMARS} == set(trees.LANGUAGES)


@pytest.mark.parametrize("language", sorted(FIRES))
def test_ordinary_code_passes_the_standard_policy(language):
    codes = [code for codes in (SILENT[language], *FIRES[language].values()) for code in codes]
    harmless = [
        c for c in codes if not found(c, language) & {"host_door", "metadata_address", "privileged", "fork_loop"}
    ]
    assert all(judge(code, language, POLICIES["standard"]).allowed for code in harmless)


# -- places ------------------------------------------------------------------------------------------------


def place_of(code: str, language: str, name: str) -> tuple[int, ...]:
    return next(tuple(seen.place) for seen in READERS[language](code, BOUNDS).facts if seen.name == name)


def test_places_are_in_characters_and_not_in_bytes():
    assert place_of("x = 'äö😀';\ns = '😀'; eval(x)", "javascript", "eval") == (2, 9, 2, 13)
    assert place_of("echo 'é😀'; curl x", "bash", "curl") == (1, 11, 1, 15)


def test_lone_surrogates_keep_the_columns():
    assert place_of("'\ud800\udfff'; eval(x)", "javascript", "eval") == (1, 6, 1, 10)


def test_the_place_of_a_call_is_what_is_called_and_not_its_arguments():
    code = "cp = require('child_process')\ncp.exec(\n'ls')"
    assert place_of(code, "javascript", "child_process.exec") == (2, 0, 2, 7)


def test_what_stands_in_a_string_has_the_place_of_the_string():
    facts = READERS["c"]('int main() { system("curl x"); }', BOUNDS).facts
    seen = next(seen for seen in facts if seen.kind is Kind.COMMAND)
    assert (seen.name, seen.language, tuple(seen.place)) == ("curl", "bash", (1, 20, 1, 28))


def test_facts_come_in_the_order_of_the_text():
    facts = READERS["javascript"]("b(1)\na(2)\nimport 'fs'\nc('x/y')", BOUNDS).facts
    assert [seen.place.line for seen in facts] == sorted(seen.place.line for seen in facts)


def test_what_is_no_code_is_said_to_be_none():
    for language in FIRES:
        assert Kind.UNPARSED in {seen.kind for seen in READERS[language](") ) if ((", BOUNDS).facts}, language


# -- sizes ---------------------------------------------------------------------------------------------------


def large(code: str, language: str, bounds: Bounds) -> list[Seen]:
    return [seen for seen in READERS[language](code, bounds).facts if seen.kind is Kind.LARGE]


@pytest.mark.parametrize("language", sorted({*FIRES} - {"bash"}))
def test_nesting_is_counted_in_brackets(language):
    seen = large("x = " + "(" * 60 + "1" + ")" * 60, language, Bounds(50, 1000))
    assert [(one.name, int(one.text) >= 60) for one in seen] == [("nesting", True)]


def test_brackets_in_strings_and_comments_are_none():
    code = f"x = '{'(' * 200}' // {'(' * 200}"
    assert not large(code, "javascript", Bounds(50, 1000))


def test_a_long_literal_is_seen():
    assert [one.name for one in large(f"x = '{'y' * 2000}'", "javascript", Bounds(50, 1000))] == ["literal_bytes"]
    assert [one.name for one in large(f"echo '{'y' * 2000}'", "bash", Bounds(50, 1000))] == ["literal_bytes"]


@pytest.mark.parametrize(
    "code",
    [
        "import os\nos.system('sudo ls')",
        "import os as o\nrun = o.popen\nrun('ls; ' + 'sudo x')",
        "import subprocess\nsubprocess.run(['sudo', 'ls', x])",
        "from subprocess import check_output as c\nc('ls | sudo x', shell=True)",
        "get_ipython().system('sudo ls')",
        "!sudo ls",
        "%%bash\nls\nsudo x",
        "%%ruby\n`sudo x`",
        "%%javascript\nrequire('child_process').exec('sudo x')",
    ],
)
def test_a_shell_line_in_python_is_read_as_one(code):
    assert "privileged" in found(code, "python")


@pytest.mark.parametrize("code", ["import os\nos.getenv('sudo x')", "print('sudo x')", "x = ['sudo', 'x']"])
def test_a_string_that_no_shell_is_given_is_none(code):
    assert "privileged" not in found(code, "python")
