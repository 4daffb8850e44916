//! A registry that wants tokens, as most public ones do (distribution's token authentication specification): Debian's
//! `docker-registry`, and a server of the test's own that gives tokens that it can verify.

use crate::server::{PASSWORD, Packed, Registry, USER, make_certificates};
use crate::world::{Archive, World};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

const SERVICE: &str = "test-registry";
const ISSUER: &str = "test-issuer";

/// Gives tokens for as long as the test runs. The key and the certificate are `ca.key` and `ca.pem` of the directory.
fn serve_tokens(directory: &Path) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let directory = directory.to_owned();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            answer(stream.unwrap(), &directory);
        }
    });
    port
}

fn answer(mut stream: TcpStream, directory: &Path) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    let request = lines.next().unwrap().unwrap();
    let headers: Vec<String> = lines
        .map_while(Result::ok)
        .take_while(|line| !line.is_empty())
        .collect();
    let given = headers.iter().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("authorization").then_some(value)
    });
    let right = format!("Basic {}", STANDARD.encode(format!("{USER}:{PASSWORD}")));
    let asked = |name: &str| {
        let (_, query) = request.split(' ').nth(1)?.split_once('?')?;
        let pair = query
            .split('&')
            .find_map(|pair| pair.strip_prefix(&format!("{name}=")))?;
        Some(pair.replace("%3A", ":").replace("%2F", "/"))
    };
    assert_eq!(asked("service").as_deref(), Some(SERVICE), "{request}");
    let (status, body) = match given {
        Some(given) if given != right => ("401 Unauthorized", json!({})),
        given => {
            // Who says nothing gets a token that allows nothing.
            let access = match (given, asked("scope")) {
                (Some(_), Some(scope)) => access(&scope),
                _ => json!([]),
            };
            ("200 OK", json!({ "token": token(directory, &access) }))
        }
    };
    let body = body.to_string();
    let length = body.len();
    let head =
        format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
    stream.write_all((head + &body).as_bytes()).unwrap();
}

/// `repository:NAME:ACTIONS` as a token has it.
fn access(scope: &str) -> Value {
    let parts: Vec<&str> = scope.splitn(3, ':').collect();
    let [kind, name, actions] = parts[..] else {
        panic!("{scope}");
    };
    let actions: Vec<&str> = actions.split(',').collect();
    json!([{ "type": kind, "name": name, "actions": actions }])
}

/// A JSON Web Token (RFC 7519) that openssl signs.
fn token(directory: &Path, access: &Value) -> String {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs();
    let certificate = openssl(
        directory,
        &["x509", "-in", "ca.pem", "-outform", "der"],
        b"",
    );
    let header = json!({ "typ": "JWT", "alg": "RS256", "x5c": [STANDARD.encode(certificate)] });
    let claims = json!({
        "iss": ISSUER, "aud": SERVICE, "sub": USER, "iat": now, "nbf": now - 10, "exp": now + 300,
        "jti": now.to_string(), "access": access,
    });
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", part(&header), part(&claims));
    let signature = openssl(
        directory,
        &["dgst", "-sha256", "-sign", "ca.key"],
        signed.as_bytes(),
    );
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

fn openssl(directory: &Path, arguments: &[&str], input: &[u8]) -> Vec<u8> {
    let mut child = Command::new("openssl")
        .args(arguments)
        .current_dir(directory)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    output.stdout
}

/// A registry that wants tokens, with an image `app:1` in it; it lives as long as what comes second.
fn registry() -> (Registry, Registry) {
    let open = Registry::plain();
    let archive = Archive::new().file("file", 0o644, b"content").end();
    open.push("app", "1", &[(archive, Packed::Gzip)]);
    let path = |name: &str| -> PathBuf { open.directory.path().join(name) };
    make_certificates(open.directory.path());
    let port = serve_tokens(open.directory.path());
    let closed = Registry::start(
        &json!({
            "auth": { "token": {
                "realm": format!("http://127.0.0.1:{port}/token"), "service": SERVICE, "issuer": ISSUER,
                "rootcertbundle": path("ca.pem"),
            } },
            "storage": { "filesystem": { "rootdirectory": path("data") } },
        }),
        false,
    );
    (closed, open)
}

#[test]
fn a_token_is_fetched_with_the_credentials_and_shown_to_the_registry() {
    let (registry, _open) = registry();
    let world = World::new();
    let name = format!("{}/app:1", registry.host());
    world.trust(&registry);
    let error = world.run(&["pull", &name]).error();
    assert!(error.contains("pull access denied"), "{error}");
    let settings = |password: &str| {
        let host = registry.host();
        world.settings(&format!(
            "registries: {{\"{host}\": {{insecure: true, username: {USER}, password: {password}}}}}"
        ));
    };
    settings("wrong");
    let error = world.run(&["pull", &name]).error();
    assert!(error.contains("incorrect username or password"), "{error}");
    settings(PASSWORD);
    world.run(&["pull", &name]).well();
    world.check();
}

#[test]
fn a_login_tells_whether_the_registry_takes_the_credentials() {
    let (registry, _open) = registry();
    let world = World::new();
    world.trust(&registry);
    let login = |password: &str| {
        let credentials = json!({ "username": USER, "password": password });
        world.feed(
            &["login", &registry.host()],
            credentials.to_string().as_bytes(),
        )
    };
    login(PASSWORD).well();
    let error = login("wrong").error();
    assert!(error.contains("incorrect username or password"), "{error}");
    let nobody = json!({ "username": USER, "password": PASSWORD }).to_string();
    let error = world
        .feed(&["login", "localhost:1"], nobody.as_bytes())
        .error();
    assert!(error.contains("localhost:1"), "{error}");
}
