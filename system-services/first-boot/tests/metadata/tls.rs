//! A service that speaks HTTPS, at the name of a real one.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// Answers by path: status and content.
pub(crate) type Answers = Arc<Mutex<Vec<(String, u16, String)>>>;

/// A service at 127.0.0.1:443, which is where these names lead to within the test's mount namespace. `authority` gets the
/// certificate of the authority that vouches for it.
pub(crate) fn serve(names: &[&str], authority: &Path) -> Answers {
    let directory = tempfile::tempdir().unwrap();
    make_certificates(directory.path(), names);
    fs::create_dir_all(authority.parent().unwrap()).unwrap();
    fs::copy(directory.path().join("ca.pem"), authority).unwrap();
    let hosts = directory.path().join("hosts");
    fs::write(&hosts, format!("127.0.0.1 localhost {}\n", names.join(" "))).unwrap();
    let bound = Command::new("mount")
        .args(["--bind", hosts.to_str().unwrap(), "/etc/hosts"])
        .status();
    assert!(bound.unwrap().success());

    let chain = CertificateDer::from_pem_file(directory.path().join("server.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(directory.path().join("server.key")).unwrap();
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![chain], key)
        .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:443").unwrap();
    let answers = Answers::default();
    let shared = Arc::clone(&answers);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
            // Those who do not trust it are gone by now.
            let _ = answer(StreamOwned::new(connection, stream.unwrap()), &shared);
        }
    });
    answers
}

/// Answers one question.
fn answer(
    stream: StreamOwned<ServerConnection, std::net::TcpStream>,
    answers: &Answers,
) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut path = String::new();
    let mut host = String::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        if let Some(rest) = line.strip_prefix("GET ") {
            path = rest.split(' ').next().unwrap_or_default().to_owned();
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("host")
        {
            value.trim().clone_into(&mut host);
        }
    }
    let asked = format!("{host}{path}");
    let found = answers.lock().unwrap();
    let found = found.iter().rfind(|(place, ..)| *place == asked);
    let (status, content) = found.map_or((404, "Not Found"), |(_, status, content)| {
        (*status, content.as_str())
    });
    let mut stream = stream.into_inner();
    write!(
        stream,
        "HTTP/1.1 {status} x\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{content}",
        content.len()
    )?;
    stream.conn.send_close_notify();
    stream.flush()
}

/// Has the service answer so from now on.
pub(crate) fn say(answers: &Answers, place: &str, status: u16, content: &str) {
    let mut answers = answers.lock().unwrap();
    answers.push((place.to_owned(), status, content.to_owned()));
}

/// An authority and a certificate of it for these names.
fn make_certificates(directory: &Path, names: &[&str]) {
    let names: Vec<String> = names.iter().map(|name| format!("DNS:{name}")).collect();
    let script = format!(
        "openssl req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -days 2 -subj /CN=test-authority && \
        openssl req -newkey rsa:2048 -nodes -keyout server.key -out server.csr -subj /CN=server && \
        printf 'subjectAltName={}\\nbasicConstraints=CA:FALSE\\n' >extensions && \
        openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out server.pem -days 2 -extfile extensions",
        names.join(",")
    );
    let output = Command::new("sh")
        .args(["-c", &script])
        .current_dir(directory)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
