//! nginx over a directory of 500 files, in the clear and over TLS with certificates of all kinds; and the certificates.

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bootward::fetch::Options;
use bootward::fetch::Url;
use bootward::fetch::tls::Clock;

/// Makes CAs, and certificates of the first one of them: name, extensions (`ext` for this host, `name` for another
/// one), beginning and end. All of them PEM files in a directory.
pub fn certificates(at: &Path, authorities: &[&str], certificates: &[(&str, &str, &str, &str)]) {
    for ca in authorities {
        openssl(
            at,
            &format!(
                "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 9999 -subj /CN={ca} -keyout {ca}.key -out {ca}.pem -addext basicConstraints=critical,CA:TRUE"
            ),
        );
    }
    std::fs::write(at.join("ext"), "subjectAltName=DNS:localhost,IP:127.0.0.1\n").unwrap();
    std::fs::write(at.join("name"), "subjectAltName=DNS:other.example\n").unwrap();
    std::fs::write(at.join("index"), "").unwrap();
    std::fs::write(at.join("ca.cnf"), "[ca]\ndefault_ca=d\n[d]\ndir=.\ndatabase=index\nrand_serial=yes\ndefault_md=sha256\nnew_certs_dir=.\npolicy=p\nunique_subject=no\n[p]\ncommonName=supplied\n").unwrap();
    for (name, ext, from, to) in certificates {
        openssl(
            at,
            &format!(
                "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN={name} -keyout {name}.key -out {name}.csr"
            ),
        );
        openssl(
            at,
            &format!(
                "ca -batch -config ca.cnf -cert ca.pem -keyfile ca.key -in {name}.csr -out {name}.pem -startdate {from} -enddate {to} -extfile {ext} -notext"
            ),
        );
    }
}

/// nginx in a directory of its own, ended when dropped.
pub struct Nginx {
    child: Child,
    directory: tempfile::TempDir,
    pub ports: [u16; 5],
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status();
        let _ = self.child.wait();
    }
}

fn openssl(directory: &Path, arguments: &str) {
    let done = Command::new("openssl").args(arguments.split(' ')).current_dir(directory).output();
    let done = done.expect("openssl");
    assert!(done.status.success(), "{arguments}: {}", String::from_utf8_lossy(&done.stderr));
}

impl Nginx {
    pub fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let at = directory.path();
        std::fs::create_dir_all(at.join("www/repo")).unwrap();
        for n in 0..500 {
            std::fs::write(at.join(format!("www/repo/{n}")), format!("object {n}").repeat(n + 1)).unwrap();
        }
        certificates(
            at,
            &["ca", "evil"],
            &[
                ("good", "ext", "20200101000000Z", "20490101000000Z"),
                ("old", "ext", "20200101000000Z", "20210101000000Z"),
                ("early", "ext", "20480101000000Z", "20490101000000Z"),
                ("wrong", "name", "20200101000000Z", "20490101000000Z"),
                ("device", "ext", "20200101000000Z", "20490101000000Z"),
            ],
        );
        let ports = [(); 5].map(|()| TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port());
        let mut servers = format!("server {{ listen 127.0.0.1:{}; }}\n", ports[0]);
        for (port, name) in ports[1..].iter().zip(["good", "old", "early", "wrong"]) {
            let client = if name == "wrong" {
                ""
            } else {
                "ssl_client_certificate ca.pem; ssl_verify_client optional;"
            };
            servers += &format!(
                "server {{ listen 127.0.0.1:{port} ssl; ssl_certificate {name}.pem; ssl_certificate_key {name}.key; {client} location /mtls/ {{ if ($ssl_client_verify != SUCCESS) {{ return 403; }} alias www/repo/; }} }}\n"
            );
        }
        let config = format!("daemon off; master_process off; pid {0}/pid; error_log stderr;\nevents {{}}\nhttp {{ access_log off; client_body_temp_path {0}/t1; proxy_temp_path {0}/t2; fastcgi_temp_path {0}/t3; uwsgi_temp_path {0}/t4; scgi_temp_path {0}/t5; root {0}/www; keepalive_requests 100; {servers} }}\n", at.display()).replace("alias www", &format!("alias {}/www", at.display()));
        std::fs::write(at.join("nginx.conf"), config).unwrap();
        let child = Command::new("/usr/sbin/nginx")
            .arg("-p")
            .arg(at)
            .arg("-c")
            .arg(at.join("nginx.conf"))
            .stderr(Stdio::null())
            .spawn()
            .expect("nginx (apt install nginx-light)");
        let nginx = Nginx { child, directory, ports };
        let up = (0..200).any(|_| {
            std::thread::sleep(Duration::from_millis(25));
            TcpStream::connect(("127.0.0.1", ports[4])).is_ok()
        });
        assert!(up, "nginx does not start");
        nginx
    }

    pub fn url(&self, n: usize, path: &str) -> Url {
        let scheme = if n == 0 { "http" } else { "https" };
        Url::parse(&format!("{scheme}://localhost:{}/{path}", self.ports[n])).unwrap()
    }

    /// A file of its directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn options(&self, ca: &str, clock: Clock) -> Options {
        Options { authorities: vec![self.directory.path().join(ca)], clock, ..Options::default() }
    }
}
