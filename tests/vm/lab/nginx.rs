//! nginx with a private CA, which asks for the device's own certificate.

use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::tools::{as_root, run, write};
use super::vm::patience;
use super::{Fault, Outcome};

/// A CA in `$1`, and a key and a certificate of it for the server and for the device each.
const CERTIFICATES: &str = "set -e; cd \"$1\"
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout ca.key -out ca.pem -subj /CN=lab -days 30 2>/dev/null
    for name in server device; do
        openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout $name.key -out $name.csr -subj /CN=$name 2>/dev/null
        echo subjectAltName=IP:10.0.2.2 >$name.ext
        openssl x509 -req -in $name.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 -extfile $name.ext -out $name.pem 2>/dev/null
    done";

/// A server; it ends with this value.
pub struct Nginx(Child);

/// A port of the loopback that nobody has now.
///
/// # Errors
/// When there is none.
pub fn free_port() -> Outcome<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    listener.map(|address| address.port()).map_err(|e| Fault::new(format!("no free port: {e}")))
}

/// Makes `ca.pem`, `device.pem` and `device.key`, and what the server needs, in a directory.
///
/// # Errors
/// When openssl fails.
pub fn certificates(dir: &Path) -> Outcome<()> {
    run(Command::new("sh").args(["-c", CERTIFICATES, "sh"]).arg(dir)).map(drop)
}

impl Nginx {
    /// Serves a repository with the certificates of a directory, where its log is too.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start(dir: &Path, repo: &Path, port: u16) -> Outcome<Self> {
        let at = dir.display();
        let config = format!(
            "daemon off; worker_processes 1; pid {at}/pid; error_log {at}/error.log; user root;
            events {{}}
            http {{
                log_format names '$ssl_client_s_dn $status $request';
                access_log {at}/access.log names;
                client_body_temp_path {at}; proxy_temp_path {at}; fastcgi_temp_path {at};
                uwsgi_temp_path {at}; scgi_temp_path {at};
                server {{
                    listen 127.0.0.1:{port} ssl;
                    root {};
                    ssl_certificate {at}/server.pem; ssl_certificate_key {at}/server.key;
                    ssl_client_certificate {at}/ca.pem; ssl_verify_client on;
                }}
            }}\n",
            repo.display()
        );
        write(&dir.join("nginx.conf"), config)?;
        let mut nginx = as_root("nginx");
        nginx.arg("-e").arg(dir.join("early.log")).arg("-c").arg(dir.join("nginx.conf"));
        let child = nginx.stderr(Stdio::null()).spawn().map_err(|e| Fault::new(format!("nginx: {e}")))?;
        let nginx = Nginx(child);
        let until = Instant::now() + patience(10);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if Instant::now() > until {
                return Err(Fault::new(format!("nginx does not listen, see {at}/error.log")));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(nginx)
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(self.0.id().cast_signed()), Signal::SIGTERM);
        let _ = self.0.wait();
    }
}
