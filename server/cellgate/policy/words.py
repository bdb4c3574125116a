"""What names mean in every language but Python: which stand for which rule. Tables, as `names` has them for Python.

A name is written as its language writes it (`os/exec.Command`, `std::process::Command`, `Net::HTTP.get`) and means what
the longest entry says that it begins with. What calling something gave means what that means, unless it has an entry
of its own: `Runtime.getRuntime().exec`. An entry of None is harmless though what lies above it is not.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from cellgate.policy.names import Words, words

__all__ = ["COMPUTING", "OTHERS"]

_PACKAGES = re.compile(r"^(?:javax?|jdk|sun)\.(?:[a-z]\w*\.)*(?=[A-Z])")  # Java's own: their classes are known by name
_CUT = {
    "packages": re.compile(r"\.(?=[^.]*$)"),
    "dots": re.compile(r"\.(?=[^.]*$)"),
    "colons": re.compile(r"(?:::|\.|\$)(?=(?:(?!::|\.|\$).)*$)"),
    "whole": re.compile(r"(?:::|\$)(?=(?:(?!::|\$).)*$)"),  # in R a dot is a letter like others
}


@dataclass(frozen=True)
class _Names(Words):
    """Words whose parts are joined by other signs than a dot."""

    joined_by: str = "dots"

    def rule_of_name(self, name: str) -> str | None:
        cut = _CUT[self.joined_by]
        if self.joined_by == "packages":
            name = _PACKAGES.sub("", name)
        while name:
            if name in self.names:
                return self.names[name]
            if name.endswith("()"):
                name = name[:-2]
            elif found := cut.search(name):
                name = name[: found.start()]
            else:
                break
        return None


def _rows(rule: str | None, names: str, prefix: str = "") -> dict[str, str | None]:
    return {prefix + name: rule for name in names.split()}


# -- JavaScript and TypeScript: browsers, Node, Deno, Bun ------------------------------------------------

_NODE_CHANGES = """
    appendFile appendFileSync chmod chmodSync chown chownSync copyFile copyFileSync cp cpSync createWriteStream link
    linkSync mkdir mkdirSync mkdtemp mkdtempSync rename renameSync rm rmSync rmdir rmdirSync symlink symlinkSync
    truncate truncateSync unlink unlinkSync utimes utimesSync write writeSync writeFile writeFileSync
"""
_DENO_CHANGES = """
    writeFile writeFileSync writeTextFile writeTextFileSync remove removeSync rename renameSync mkdir mkdirSync
    chmod chmodSync symlink symlinkSync link create createSync truncate copyFile
"""
_DENO_LOOKS = "open openSync readFile readFileSync readTextFile readTextFileSync readDir readDirSync stat lstat"

_JAVASCRIPT = _Names(
    {
        **_rows("process", "child_process cluster worker_threads execa shelljs cross-spawn zx node-pty process.fork"),
        **_rows("process", "Deno.run Deno.Command Bun.spawn Bun.spawnSync Bun.$ Worker SharedWorker"),
        **_rows("ends_kernel", "process.exit process.abort process.kill process.reallyExit Deno.exit Deno.kill"),
        **_rows("privileged", "process.setuid process.setgid process.setgroups process.initgroups process.seteuid"),
        **_rows(
            "network", "net http https http2 tls dgram dns dns/promises inspector axios got node-fetch undici request"
        ),
        **_rows(
            "network",
            "superagent ws socket.io socket.io-client express fastify koa ssh2 nodemailer redis mysql pg mongodb",
        ),
        **_rows(
            "network", "fetch XMLHttpRequest WebSocket EventSource WebTransport RTCPeerConnection navigator.sendBeacon"
        ),
        **_rows(
            "network", "Deno.connect Deno.listen Deno.connectTls Deno.serve Bun.serve Bun.connect Bun.listen $.ajax"
        ),
        **_rows(None, "http.STATUS_CODES http.METHODS net.isIP net.isIPv4 net.isIPv6"),
        **_rows(
            "file_access", "fs fs/promises fs-extra graceful-fs glob globby rimraf Bun.file sqlite sqlite3 node:sqlite"
        ),
        **_rows("file_access", _DENO_LOOKS, "Deno."),
        **_rows("file_change", _NODE_CHANGES, "fs."),
        **_rows("file_change", _NODE_CHANGES, "fs/promises."),
        **_rows("file_change", _NODE_CHANGES, "fs.promises."),
        **_rows("file_change", _DENO_CHANGES, "Deno."),
        **_rows("file_change", "Bun.write rimraf"),
        **_rows("environment", "process.env Deno.env Bun.env"),
        **_rows("dynamic_code", "eval Function AsyncFunction GeneratorFunction vm vm2 isolated-vm repl document.write"),
        **_rows("dynamic_code", "setImmediate.constructor WebAssembly.instantiate importScripts v8.setFlagsFromString"),
        **_rows("dynamic_import", "module Module process.mainModule require.cache require.extensions createRequire"),
        **_rows("dynamic_import", "process.getBuiltinModule module.constructor require.main"),
        **_rows("introspection", "async_hooks v8 inspector process._getActiveHandles Object.getPrototypeOf"),
        **_rows(
            "introspection", "Object.setPrototypeOf Reflect.getPrototypeOf Reflect.setPrototypeOf arguments.callee"
        ),
        **_rows(
            "changes_attributes", "Object.defineProperty Object.defineProperties Reflect.set Reflect.defineProperty"
        ),
        **_rows("deserialize", "v8.deserialize node-serialize serialize-javascript funcster"),
        **_rows(
            "native_code", "process.dlopen process.binding process._linkedBinding ffi ffi-napi ref-napi koffi bindings"
        ),
        **_rows("native_code", "Deno.dlopen bun:ffi node-gyp-build WebAssembly.Module WebAssembly.Instance"),
        **_rows("input", "prompt readline readline/promises process.stdin"),
    },
    attributes={
        **_rows("introspection", "constructor __proto__ __defineGetter__ __lookupGetter__ caller callee"),
        **_rows("dynamic_import", "mainModule"),
        **_rows("native_code", "dlopen _linkedBinding"),
        **_rows(None, "__dirname __filename"),
    },
)

# -- Ruby --------------------------------------------------------------------------------------------------

_RUBY_CHANGES = "chmod chown delete link mkfifo rename symlink truncate unlink utime write binwrite"
_RUBY = _Names(
    {
        **_rows(
            "process", "system exec spawn fork ` IO.popen open3 Open3 pty PTY Process.spawn Process.exec Process.fork"
        ),
        **_rows("process", "Process.daemon shellwords shell Shell childprocess posix-spawn syscall"),
        **_rows("ends_kernel", "exit! abort Process.kill Process.exit! at_exit"),
        **_rows("privileged", "Process::UID Process::GID Process::Sys Process.setproctitle Process.uid= Dir.chroot"),
        **_rows(
            "network", "socket Socket TCPSocket TCPServer UDPSocket UNIXSocket UNIXServer BasicSocket Addrinfo net/http"
        ),
        **_rows(
            "network", "Net open-uri URI.open OpenURI net/https net/ftp net/smtp net/imap net/pop net/ssh openssl/ssl"
        ),
        **_rows(
            "network",
            "OpenSSL::SSL resolv Resolv webrick WEBrick httparty HTTParty faraday Faraday rest-client RestClient",
        ),
        **_rows(
            "network", "excon typhoeus sinatra rails drb DRb xmlrpc/client Gem.install bundler/inline redis mysql2 pg"
        ),
        **_rows(
            "file_access", "open File IO Dir Pathname pathname FileTest ARGF readlines gets test tempfile Tempfile find"
        ),
        **_rows("file_access", "sqlite3 pstore YAML::Store CSV.read CSV.open CSV.foreach"),
        **_rows(
            None, "File.join File.basename File.dirname File.extname File::SEPARATOR File.expand_path IO.console gets"
        ),
        **_rows(None, "File.split File::Stat"),
        **_rows("file_change", _RUBY_CHANGES, "File."),
        **_rows("file_change", "fileutils FileUtils Dir.mkdir Dir.rmdir Dir.unlink Dir.delete IO.write IO.binwrite"),
        **_rows("environment", "ENV"),
        **_rows(
            "dynamic_code", "eval binding instance_eval class_eval module_eval instance_exec class_exec erb ERB irb IRB"
        ),
        **_rows(
            "dynamic_code", "RubyVM::InstructionSequence RubyVM RubyVM::AbstractSyntaxTree ripper Proc.new.binding"
        ),
        **_rows("dynamic_code", "TOPLEVEL_BINDING set_trace_func"),
        **_rows("dynamic_import", "load autoload Gem $LOAD_PATH $: $LOADED_FEATURES"),
        **_rows("computed_attribute", "const_get send public_send __send__ method instance_method define_method"),
        **_rows("changes_attributes", "instance_variable_set const_set remove_const class_variable_set alias_method"),
        **_rows(
            "introspection", "ObjectSpace TracePoint objspace method_missing caller_locations instance_variable_get"
        ),
        **_rows("deserialize", "Marshal YAML.load YAML.unsafe_load Psych.load Psych.unsafe_load Oj.load"),
        **_rows("native_code", "fiddle Fiddle ffi FFI dl DL Win32API inline Inline RubyInline"),
        **_rows("input", "$stdin STDIN"),
    },
    attributes={
        **_rows("dynamic_code", "instance_eval class_eval module_eval instance_exec class_exec eval binding"),
        **_rows(
            "computed_attribute", "send public_send __send__ const_get instance_method define_method public_method"
        ),
        **_rows("changes_attributes", "instance_variable_set const_set remove_const class_variable_set"),
        **_rows("introspection", "instance_variable_get ancestors superclass"),
        **_rows(None, "__method__ __dir__ __FILE__ __id__"),
    },
    joined_by="colons",
)

# -- Go ----------------------------------------------------------------------------------------------------

_GO_LOOKS = "Open OpenFile ReadFile ReadDir Stat Lstat Readlink DirFS Root OpenRoot"
_GO_CHANGES = """
    Create CreateTemp WriteFile Remove RemoveAll Rename Mkdir MkdirAll MkdirTemp Chmod Chown Lchown Chtimes Link
    Symlink Truncate CopyFS
"""
_GO = _Names(
    {
        **_rows("process", "os/exec os.StartProcess syscall.Exec syscall.ForkExec syscall.StartProcess os.FindProcess"),
        **_rows("ends_kernel", "os.Exit syscall.Exit syscall.Kill log.Fatal log.Fatalf log.Fatalln runtime.Goexit"),
        **_rows(
            "privileged", "syscall.Setuid syscall.Setgid syscall.Chroot syscall.Mount syscall.Unshare syscall.Ptrace"
        ),
        **_rows(
            "network",
            "net net/http net/rpc net/smtp net/http/httputil crypto/tls golang.org/x/net google.golang.org/grpc",
        ),
        **_rows(
            "network",
            "github.com/gorilla/websocket golang.org/x/crypto/ssh database/sql log/syslog expvar net/http/pprof",
        ),
        **_rows(
            None, "net/url net/mail net/textproto net/netip net.ParseIP net.ParseCIDR net.IP net.IPNet net.ParseMAC"
        ),
        **_rows(None, "net/http.StatusText net/http.StatusOK"),
        **_rows(
            "file_access",
            "io/ioutil embed path/filepath.Walk path/filepath.WalkDir path/filepath.Glob archive/zip.OpenReader",
        ),
        **_rows(None, "io/ioutil.ReadAll io/ioutil.Discard io/ioutil.NopCloser"),
        **_rows("file_access", _GO_LOOKS, "os."),
        **_rows("file_change", _GO_CHANGES, "os."),
        **_rows("file_change", "io/ioutil.WriteFile io/ioutil.TempFile io/ioutil.TempDir syscall.Unlink syscall.Rmdir"),
        **_rows("environment", "os.Getenv os.Setenv os.Environ os.LookupEnv os.ExpandEnv os.Unsetenv os.Clearenv"),
        **_rows("dynamic_code", "plugin go/parser github.com/traefik/yaegi text/template html/template"),
        **_rows("introspection", "reflect runtime/debug debug/elf debug/gosym runtime.Caller"),
        **_rows("deserialize", "encoding/gob"),
        **_rows("native_code", "C unsafe syscall golang.org/x/sys runtime/cgo github.com/ebitengine/purego"),
        **_rows("input", "os.Stdin fmt.Scan fmt.Scanln fmt.Scanf"),
    }
)

# -- Rust --------------------------------------------------------------------------------------------------

_RUST_CHANGES = """
    write create_dir create_dir_all remove_dir remove_dir_all remove_file rename copy hard_link set_permissions
    File::create File::create_new OpenOptions soft_link
"""
_RUST = _Names(
    {
        **_rows("process", "std::process std::os::unix::process nix::unistd::fork nix::unistd::execv duct subprocess"),
        **_rows("process", "tokio::process async_process nix::sys::wait"),
        **_rows(None, "std::process::id std::process::ExitCode std::process::Termination"),
        **_rows("ends_kernel", "std::process::exit std::process::abort nix::sys::signal libc::kill libc::_exit"),
        **_rows(
            "privileged", "nix::unistd::setuid nix::unistd::chroot nix::mount nix::sched std::os::unix::fs::chroot"
        ),
        **_rows(
            "network", "std::net std::os::unix::net tokio::net async_std::net mio socket2 reqwest hyper ureq curl isahc"
        ),
        **_rows(
            "network", "surf tungstenite tokio_tungstenite rustls native_tls openssl actix_web axum warp rocket tonic"
        ),
        **_rows(None, "std::net::IpAddr std::net::Ipv4Addr std::net::Ipv6Addr std::net::SocketAddr"),
        **_rows(
            "file_access",
            "std::fs tokio::fs async_std::fs include_str include_bytes include walkdir glob memmap memmap2",
        ),
        **_rows("file_access", "std::path::Path::exists rusqlite zip tar"),
        **_rows("file_change", _RUST_CHANGES, "std::fs::"),
        **_rows("file_change", "tempfile fs_extra remove_dir_all"),
        **_rows(
            "environment", "std::env::var std::env::vars std::env::set_var std::env::var_os std::env::remove_var env"
        ),
        **_rows("environment", "option_env std::env::vars_os"),
        **_rows("dynamic_code", "rhai mlua rlua pyo3 boa_engine wasmtime wasmer evcxr deno_core"),
        **_rows("deserialize", "bincode serde_pickle std::mem::transmute_copy"),
        **_rows(
            "native_code",
            "unsafe extern asm global_asm naked_asm libc nix libloading dlopen rustix syscalls core::arch",
        ),
        **_rows("native_code", "std::arch std::ffi::CString std::mem::transmute std::ptr std::os::raw winapi windows"),
        **_rows("input", "std::io::stdin std::io::Stdin"),
    },
    joined_by="colons",
)

# -- Java: those of `java.` by their plain names -----------------------------------------------------------

_JAVA = _Names(
    {
        **_rows("process", "ProcessBuilder Runtime.exec Runtime.getRuntime().exec ProcessHandle Process Desktop"),
        **_rows(
            "ends_kernel", "System.exit Runtime.getRuntime().exit Runtime.getRuntime().halt Runtime.halt Runtime.exit"
        ),
        **_rows("network", "Socket ServerSocket DatagramSocket MulticastSocket URL URLConnection HttpURLConnection"),
        **_rows("network", "HttpClient HttpRequest HttpServer SSLSocket SSLSocketFactory SSLContext SocketChannel"),
        **_rows(
            "network", "ServerSocketChannel DatagramChannel AsynchronousSocketChannel InetAddress NetworkInterface"
        ),
        **_rows("network", "InitialContext DriverManager LocateRegistry UnicastRemoteObject WebSocket Authenticator"),
        **_rows(
            "network",
            "okhttp3 org.apache.http org.apache.hc io.netty org.springframework.web com.mongodb redis.clients",
        ),
        **_rows(
            "file_access", "File FileReader FileInputStream RandomAccessFile Files FileChannel FileSystems Scanner.File"
        ),
        **_rows("file_access", "AsynchronousFileChannel ZipFile JarFile FileSystem Path.toFile"),
        **_rows(None, "File.separator File.pathSeparator Files.FileVisitResult"),
        **_rows(
            "file_change", "FileWriter FileOutputStream PrintWriter.File Files.write Files.writeString Files.delete"
        ),
        **_rows("file_change", "Files.deleteIfExists Files.move Files.copy Files.createFile Files.createDirectory"),
        **_rows(
            "file_change",
            "Files.createDirectories Files.createTempFile Files.createTempDirectory Files.newOutputStream",
        ),
        **_rows("file_change", "Files.newBufferedWriter Files.createLink Files.createSymbolicLink Files.setAttribute"),
        **_rows("file_change", "Files.setPosixFilePermissions Files.setOwner File.createTempFile"),
        **_rows("environment", "System.getenv System.setProperty System.getProperties"),
        **_rows(
            "dynamic_code", "ScriptEngineManager ScriptEngine ToolProvider JavaCompiler JShell GroovyShell Compiler"
        ),
        **_rows(
            "dynamic_code", "MethodHandles.Lookup.defineClass org.mozilla.javascript groovy.lang org.graalvm.polyglot"
        ),
        **_rows(
            "dynamic_import", "Class.forName ClassLoader URLClassLoader SecureClassLoader ServiceLoader ModuleLayer"
        ),
        **_rows("introspection", "Method Field Constructor Proxy MethodHandles MethodHandle VarHandle Instrumentation"),
        **_rows(
            "introspection",
            "AccessibleObject LambdaMetafactory StackWalker ManagementFactory VirtualMachine Thread.getAllStackTraces",
        ),
        **_rows("deserialize", "ObjectInputStream XMLDecoder XStream com.esotericsoftware.kryo SerializationUtils"),
        **_rows(
            "native_code",
            "System.load System.loadLibrary Runtime.getRuntime().load Runtime.getRuntime().loadLibrary Unsafe",
        ),
        **_rows("native_code", "Linker SymbolLookup Arena MemorySegment com.sun.jna jnr.ffi native NativeLibrary"),
        **_rows("input", "System.in System.console Console"),
    },
    attributes={
        **_rows(
            "introspection",
            "getDeclaredMethod getDeclaredField getDeclaredConstructor getDeclaredMethods setAccessible",
        ),
        **_rows(
            "introspection", "getDeclaredFields getMethod getMethods getConstructor getConstructors getClassLoader"
        ),
        **_rows("dynamic_import", "loadClass defineClass findClass"),
        **_rows("dynamic_code", "getEngineByName"),
        **_rows("deserialize", "readObject readUnshared"),
    },
    joined_by="packages",
)

# -- C and C++ ---------------------------------------------------------------------------------------------

_C_NAMES: dict[str, str | None] = {
    **_rows(
        "process",
        "system popen fork vfork clone clone3 execl execlp execle execv execvp execve execvpe fexecve execveat",
    ),
    **_rows(
        "process", "posix_spawn posix_spawnp wordexp pthread_atfork spawn.h forkpty openpty wordexp.h pty.h sched.h"
    ),
    **_rows("ends_kernel", "_exit _Exit abort kill killpg raise tgkill quick_exit pthread_kill"),
    **_rows(
        "privileged",
        "setuid setgid seteuid setegid setreuid setregid setresuid setresgid setgroups chroot mount umount umount2",
    ),
    **_rows(
        "privileged",
        "unshare setns pivot_root mknod ptrace init_module finit_module reboot swapon bpf capset iopl ioperm",
    ),
    **_rows("privileged", "sys/mount.h sys/ptrace.h linux/bpf.h sys/capability.h sys/reboot.h"),
    **_rows(
        "network", "socket socketpair connect accept accept4 listen bind sendto recvfrom sendmsg recvmsg getaddrinfo"
    ),
    **_rows(
        "network",
        "gethostbyname inet_pton sys/socket.h netinet/in.h arpa/inet.h netdb.h sys/un.h curl/curl.h curl_easy_init",
    ),
    **_rows("network", "curl_easy_perform openssl/ssl.h netinet/tcp.h net/if.h linux/netlink.h linux/vm_sockets.h"),
    **_rows(
        "file_access",
        "fopen fopen64 freopen open open64 openat openat2 creat opendir readdir scandir fdopen mmap sendfile",
    ),
    **_rows(
        "file_access", "stat lstat access readlink ftw nftw glob glob.h dirent.h sys/stat.h fcntl.h ftw.h sys/mman.h"
    ),
    **_rows(
        "file_change", "unlink unlinkat rmdir mkdir mkdirat remove rename renameat renameat2 truncate ftruncate chmod"
    ),
    **_rows(
        "file_change",
        "fchmod chown lchown symlink symlinkat link linkat mkfifo mkstemp mkdtemp tmpfile utime utimes creat",
    ),
    **_rows("environment", "getenv secure_getenv setenv putenv unsetenv clearenv environ"),
    **_rows(
        "native_code",
        "dlopen dlsym dlmopen dlfcn.h syscall sys/syscall.h asm mprotect mremap memfd_create process_vm_readv",
    ),
    **_rows(
        "native_code", "process_vm_writev io_uring_setup linux/io_uring.h liburing.h userfaultfd perf_event_open keyctl"
    ),
    **_rows("input", "scanf gets getchar stdin"),
}
_C = _Names({**_C_NAMES})

_CPP = _Names(
    {
        # `std::remove` is an algorithm, and these are what methods are called too
        **{name: rule for name, rule in _C_NAMES.items() if name not in ("remove", "bind", "gets")},
        **_rows("file_access", "ifstream fstream filebuf wifstream wfstream filesystem std::filesystem basic_ifstream"),
        **_rows(
            "file_change",
            "ofstream wofstream basic_ofstream filesystem::remove filesystem::remove_all filesystem::rename",
        ),
        **_rows(
            "file_change", "filesystem::copy filesystem::copy_file filesystem::create_directory filesystem::resize_file"
        ),
        **_rows("file_change", "filesystem::create_directories filesystem::permissions filesystem::create_symlink"),
        **_rows(None, "filesystem::path"),
        **_rows(
            "network",
            "boost::asio boost/asio.hpp asio asio.hpp boost/beast.hpp boost::beast httplib httplib.h cpr cpr/cpr.h",
        ),
        **_rows("process", "boost::process boost/process.hpp TSystem gSystem"),  # the last two are ROOT's
        **_rows("dynamic_code", "gInterpreter TInterpreter gROOT cling clang::Interpreter"),
        **_rows("native_code", "reinterpret_cast"),
        **_rows("input", "cin wcin"),
    },
    joined_by="colons",
)

# -- R -----------------------------------------------------------------------------------------------------

_R = _Names(
    {
        **_rows(
            "process", "system system2 shell shell.exec pipe fifo processx callr sys parallel::mcparallel mcparallel"
        ),
        **_rows(
            "process", "parallel::mclapply mclapply makeCluster parallel::makeCluster future::multisession Sys.kill"
        ),
        **_rows("ends_kernel", "q quit tools::pskill pskill"),
        **_rows("privileged", "unix::setuid unix::setgid RAppArmor"),
        **_rows(
            "network", "url socketConnection serverSocket socketSelect make.socket download.file curl httr httr2 RCurl"
        ),
        **_rows(
            "network", "install.packages update.packages available.packages browseURL remotes devtools pak BiocManager"
        ),
        **_rows(
            "network",
            "shiny plumber httpuv websocket rvest nsl open.connection url.show curlGetHeaders DBI RMySQL RPostgres",
        ),
        **_rows(
            "file_access",
            "file gzfile bzfile xzfile unz readLines readline scan read.csv read.table read.delim read.csv2",
        ),
        **_rows(
            "file_access",
            "read.fwf readBin readChar list.files list.dirs dir file.info file.exists file.show readr readxl",
        ),
        **_rows(
            "file_access", "data.table::fread fread arrow jsonlite::read_json haven vroom Sys.glob file.choose sink"
        ),
        **_rows(None, "file.path readline"),
        **_rows(
            "file_change",
            "writeLines write write.csv write.table write.csv2 writeBin writeChar dput dump saveRDS save save.image",
        ),
        **_rows(
            "file_change",
            "unlink file.remove file.rename file.create file.copy file.append file.symlink file.link dir.create",
        ),
        **_rows(
            "file_change",
            "Sys.chmod Sys.umask Sys.setFileTime tempfile setwd data.table::fwrite fwrite ggplot2::ggsave ggsave",
        ),
        **_rows("file_change", "pdf png jpeg svg bmp tiff"),
        **_rows("environment", "Sys.getenv Sys.setenv Sys.unsetenv"),
        **_rows(
            "dynamic_code",
            "eval evalq eval.parent parse str2lang str2expression source sys.source withVisible rlang::eval_tidy",
        ),
        **_rows(
            "dynamic_code",
            "reticulate V8 rlang::parse_expr local Recall body<- formals<- as.function makeActiveBinding",
        ),
        **_rows(None, "local Recall withVisible"),
        **_rows("dynamic_import", "loadNamespace attachNamespace attach requireNamespace"),
        **_rows("computed_attribute", "do.call match.fun get get0 mget getFunction"),
        **_rows(
            "changes_attributes",
            "assign delayedAssign assignInNamespace assignInMyNamespace unlockBinding fixInNamespace",
        ),
        **_rows(None, "do.call match.fun get get0 mget assign"),
        **_rows(
            "introspection",
            "globalenv baseenv sys.function sys.frames sys.calls parent.frame asNamespace getNamespace topenv",
        ),
        **_rows(
            "introspection",
            "getAnywhere getFromNamespace getExportedValue environment<- trace untrace body environment",
        ),
        **_rows("deserialize", "readRDS load unserialize loadRDS qs"),
        **_rows(
            "native_code",
            "dyn.load library.dynam .Call .C .External .External2 .Fortran .Internal .Primitive getNativeSymbolInfo",
        ),
        **_rows("native_code", "Rcpp inline cpp11 rJava"),
        **_rows("input", "readline menu file.choose"),
    },
    joined_by="whole",
)

# Modules of these languages that compute, or of which all else is found by its own name. None is called like a module
# of Python that does more.
COMPUTING = words(
    """
    assert buffer events querystring string_decoder timers
    benchmark bigdecimal date delegate digest forwardable ostruct prime matrix securerandom set singleton strscan
    bufio bytes cmp container context encoding errors fmt hash iter maps math regexp slices sort strconv strings sync
    text/tabwriter unicode
    std::borrow std::cell std::cmp std::collections std::convert std::error std::fmt std::hash std::iter std::num
    std::ops std::option std::rc std::result std::str std::string std::sync std::time std::vec
    java.math java.text java.time java.util
    assert.h complex.h ctype.h errno.h float.h inttypes.h iso646.h limits.h locale.h math.h stdarg.h stdbool.h stddef.h
    stdint.h stdio.h stdlib.h string.h tgmath.h time.h wchar.h
    algorithm bit bitset cassert cctype cfloat chrono climits cmath compare complex concepts cstddef cstdint cstdio
    cstdlib cstring deque exception format forward_list functional initializer_list iomanip iostream iterator limits
    list map memory numeric optional ostream ranges ratio regex span sstream stack stdexcept string_view tuple
    type_traits typeinfo unordered_map unordered_set utility valarray variant vector
    dplyr forcats ggplot2 lubridate magrittr purrr stats stringr tibble tidyr
    """
)

OTHERS: dict[str, Words] = {
    "c": _C,
    "cpp": _CPP,
    "go": _GO,
    "java": _JAVA,
    "javascript": _JAVASCRIPT,
    "r": _R,
    "ruby": _RUBY,
    "rust": _RUST,
    "typescript": _JAVASCRIPT,
}
