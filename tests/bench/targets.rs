//! What is measured: the way without a proxy, the minimal hyper proxy, nginx, and Crossfade, each
//! as a process of its own.

use std::{
    fmt, fs,
    io::{self, Error, ErrorKind},
    net::{SocketAddr, TcpListener},
    path::Path,
    process::Stdio,
    time::Duration,
};

use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
    time::{Instant, sleep, timeout},
};

use crate::{
    Fault,
    floor::Ways,
    load::{Delivery, Job, Size},
    mock::{Mock, Plan},
};

/// Longest a target may take until it answers, and mirrors what it should.
const START_TIME_MAX: Duration = Duration::from_secs(30);
/// How often it is looked at until then.
const LOOK: Duration = Duration::from_millis(10);
/// Longest nginx waits for a mirrored answer; it holds the caller's connection so long.
pub(crate) const NGINX_MIRROR_SECONDS: u32 = 1;
/// What a slow candidate takes.
pub(crate) const SLOW: Duration = Duration::from_secs(1);

/// The programs between caller and provider.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Via {
    Direct,
    Floor,
    Nginx,
    Crossfade,
}

/// How the candidate behaves; all but the first from when the target answers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Candidate {
    Answers,
    Hangs,
    /// Answers much later than the primary.
    Slow,
    /// Refuses connections.
    Dead,
    /// Answers all with a 500.
    Fails,
}

/// One program, mirroring so many percent.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Target {
    pub(crate) via: Via,
    pub(crate) percent: u32,
    pub(crate) size: Size,
    pub(crate) candidate: Candidate,
}

/// The two providers.
pub(crate) struct Providers {
    pub(crate) primary: Mock,
    pub(crate) candidate: Mock,
}

impl Providers {
    /// Both answer at once.
    pub(crate) async fn start() -> io::Result<Self> {
        Ok(Self {
            primary: Mock::start("primary").await?,
            candidate: Mock::start("candidate").await?,
        })
    }

    /// How both answer from now on.
    pub(crate) fn set(&self, plan: Plan) {
        self.primary.set(plan);
        self.candidate.set(plan);
    }

    /// Requests that came to each so far, the primary's first.
    pub(crate) fn asked(&self) -> (u32, u32) {
        (self.primary.asked(), self.candidate.asked())
    }
}

/// A target that answers. Dropped, its process ends.
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    child: Option<Child>,
    _dir: TempDir,
}

/// Whether the measured program has a core of its own.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cores {
    Apart,
    Shared,
}

impl Target {
    /// All there are.
    pub(crate) fn all() -> Vec<Self> {
        let answers =
            |via, percent, size| Self { via, percent, size, candidate: Candidate::Answers };
        let mut all = Vec::new();
        for (size, percents) in [(Size::Small, &[0, 10, 100][..]), (Size::Large, &[0, 100])] {
            all.push(answers(Via::Direct, 0, size));
            for via in [Via::Floor, Via::Nginx, Via::Crossfade] {
                all.extend(percents.iter().map(|percent| answers(via, *percent, size)));
            }
        }
        let ill = |via, candidate| Self { candidate, ..answers(via, 100, Size::Small) };
        all.push(ill(Via::Nginx, Candidate::Hangs));
        let ills = [Candidate::Hangs, Candidate::Slow, Candidate::Dead, Candidate::Fails];
        all.extend(ills.map(|candidate| ill(Via::Crossfade, candidate)));
        all
    }

    /// The same requests without a proxy.
    pub(crate) fn direct(self) -> Self {
        Self { via: Via::Direct, percent: 0, candidate: Candidate::Answers, ..self }
    }

    /// The same program with mirroring off.
    pub(crate) fn off(self) -> Self {
        Self { percent: 0, candidate: Candidate::Answers, ..self }
    }

    /// Starts it and waits until it answers.
    pub(crate) async fn start(self, providers: &Providers, cores: Cores) -> Result<Running, Fault> {
        let dir = TempDir::with_prefix("crossfade-bench-")?;
        let mut running = match self.via {
            Via::Direct => Running { address: providers.primary.address, child: None, _dir: dir },
            Via::Floor => floor(self.percent, providers, dir, cores).await?,
            Via::Nginx => nginx(self.percent, providers, dir, cores)?,
            Via::Crossfade => crossfade(self.percent, providers, dir, cores).await?,
        };
        self.ready(&mut running, providers).await?;
        Ok(running)
    }

    async fn ready(self, running: &mut Running, providers: &Providers) -> Result<(), Fault> {
        let job = Job::new(running.address, self.size, &Delivery::Whole, providers.primary.whole());
        let copied = providers.candidate.asked();
        let ends = Instant::now() + START_TIME_MAX;
        loop {
            let answer = job.once().await;
            if answer.is_ok() && (self.percent == 0 || copied < providers.candidate.asked()) {
                return Ok(());
            }
            if let Some(child) = &mut running.child
                && let Some(status) = child.try_wait()?
            {
                return Err(format!("{self} ended by itself, with {status}").into());
            }
            if ends < Instant::now() {
                let why = answer.err().map_or("it mirrors nothing".to_owned(), |it| it.to_string());
                return Err(format!("{self} is not ready after {START_TIME_MAX:?}: {why}").into());
            }
            sleep(LOOK).await;
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.via {
            Via::Direct => "direct",
            Via::Floor => "floor",
            Via::Nginx => "nginx",
            Via::Crossfade => "crossfade",
        })?;
        match self.candidate {
            Candidate::Answers if self.via == Via::Direct => {}
            Candidate::Answers => write!(f, "/{}", self.percent)?,
            Candidate::Hangs => f.write_str("/hang")?,
            Candidate::Slow => f.write_str("/slow")?,
            Candidate::Dead => f.write_str("/dead")?,
            Candidate::Fails => f.write_str("/fail")?,
        }
        f.write_str(if self.size == Size::Large { "/64k" } else { "" })
    }
}

impl Running {
    /// What its threads have run so far; none without a process, or where `/proc` is missing.
    pub(crate) fn cpu(&self) -> Option<Duration> {
        let tasks = fs::read_dir(self.proc("task")?).ok()?;
        let nanos = tasks.filter_map(|task| {
            let text = fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
            text.split_whitespace().next()?.parse::<u64>().ok()
        });
        Some(Duration::from_nanos(nanos.sum()))
    }

    /// Its resident memory, in KiB.
    pub(crate) fn memory_kib(&self) -> Option<u32> {
        let status = fs::read_to_string(self.proc("status")?).ok()?;
        let line = status.lines().find_map(|it| it.strip_prefix("VmRSS:"))?;
        line.split_whitespace().next()?.parse().ok()
    }

    /// Ends it at once and waits until it has.
    pub(crate) async fn stop(mut self) -> Result<(), Fault> {
        if let Some(child) = &mut self.child {
            if let Some(status) = child.try_wait()? {
                return Err(format!("a proxy ended by itself, with {status}").into());
            }
            child.kill().await?;
        }
        Ok(())
    }

    fn proc(&self, entry: &str) -> Option<String> {
        Some(format!("/proc/{}/{entry}", self.child.as_ref()?.id()?))
    }
}

impl Cores {
    /// Keeps this process, its threads and the mocks off the first core, if `taskset` can.
    pub(crate) fn take() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let taskset = |args: &[&str]| {
            let mut command = std::process::Command::new("taskset");
            let status = command.args(args).stdout(Stdio::null()).stderr(Stdio::null()).status();
            status.is_ok_and(|it| it.success())
        };
        let rest = format!("1-{}", cores.saturating_sub(1));
        let own = std::process::id().to_string();
        if 1 < cores && taskset(&["-c", "0", "true"]) && taskset(&["-p", "-c", &rest, &own]) {
            Self::Apart
        } else {
            Self::Shared
        }
    }

    fn command(self, program: &Path) -> Command {
        let mut command = match self {
            Self::Apart => {
                let mut command = Command::new("taskset");
                command.args(["-c", "0"]).arg(program);
                command
            }
            Self::Shared => Command::new(program),
        };
        command.stdin(Stdio::null()).kill_on_drop(true);
        command
    }
}

/// The version of the nginx that is installed.
pub(crate) fn nginx_version() -> Option<String> {
    let output = std::process::Command::new("nginx").arg("-v").output().ok()?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    Some(text.trim().rsplit('/').next()?.to_owned())
}

fn nginx(
    percent: u32,
    providers: &Providers,
    dir: TempDir,
    cores: Cores,
) -> Result<Running, Fault> {
    // Freed for nginx, which takes addresses from its configuration alone.
    let address = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?;
    let config = dir.path().join("nginx.conf");
    fs::write(&config, nginx_config(percent, providers, dir.path(), address))?;
    let mut command = cores.command(Path::new("nginx"));
    command.args(["-e", "stderr", "-p"]).arg(dir.path()).arg("-c").arg(config);
    let child = command.spawn()?;
    Ok(Running { address, child: Some(child), _dir: dir })
}

/// One process that is its own worker, so that ending it ends all of it.
fn nginx_config(percent: u32, providers: &Providers, dir: &Path, listen: SocketAddr) -> String {
    let (primary, candidate) = (providers.primary.address, providers.candidate.address);
    let dir = dir.display();
    let copied = match percent {
        100 => "100% 1;".to_owned(),
        _ => format!("{percent}% 1; * 0;"),
    };
    let (share, mirror) = match percent {
        0 => (String::new(), ""),
        _ => (format!("split_clients $request_id $copied {{ {copied} }}"), "mirror /copy;"),
    };
    let copy = match percent {
        0 => String::new(),
        _ => format!(
            "location = /copy {{
                internal;
                if ($copied != 1) {{ return 204; }}
                proxy_read_timeout {NGINX_MIRROR_SECONDS}s;
                proxy_pass http://candidate$request_uri;
            }}"
        ),
    };
    format!(
        "daemon off; master_process off; worker_processes 1; worker_rlimit_nofile 32768;
        pid {dir}/pid; error_log stderr emerg;
        events {{ worker_connections 16384; }}
        http {{
            access_log off;
            client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy;
            fastcgi_temp_path {dir}/fastcgi; uwsgi_temp_path {dir}/uwsgi;
            scgi_temp_path {dir}/scgi;
            client_body_buffer_size 64k; keepalive_requests 1000000000;
            proxy_http_version 1.1; proxy_set_header Connection \"\"; proxy_buffering off;
            upstream primary {{
                server {primary}; keepalive 1024; keepalive_requests 1000000000;
            }}
            upstream candidate {{
                server {candidate} max_fails=0; keepalive 1024; keepalive_requests 1000000000;
            }}
            {share}
            server {{
                listen {listen} backlog=4096;
                location / {{ {mirror} proxy_pass http://primary; }}
                {copy}
            }}
        }}"
    )
}

async fn crossfade(
    percent: u32,
    providers: &Providers,
    dir: TempDir,
    cores: Cores,
) -> Result<Running, Fault> {
    let config = dir.path().join("crossfade.toml");
    fs::write(&config, crossfade_config(percent, providers, dir.path()))?;
    let mut command = cores.command(Path::new(env!("CARGO_BIN_EXE_crossfade")));
    command.args(["serve", "-c"]).arg(config).env("RUST_LOG", "error");
    said(command, dir).await
}

async fn floor(
    percent: u32,
    providers: &Providers,
    dir: TempDir,
    cores: Cores,
) -> Result<Running, Fault> {
    let (primary, candidate) = (providers.primary.address, providers.candidate.address);
    let mut command = cores.command(&std::env::current_exe()?);
    command.arg("--floor").arg(Ways { primary, candidate, percent }.text());
    said(command, dir).await
}

/// A program that says where it serves.
async fn said(mut command: Command, dir: TempDir) -> Result<Running, Fault> {
    let mut child = command.stdout(Stdio::piped()).spawn()?;
    let out = child.stdout.take().ok_or_else(|| Error::from(ErrorKind::BrokenPipe))?;
    let mut lines = BufReader::new(out).lines();
    let line = timeout(START_TIME_MAX, lines.next_line()).await??;
    let line = line.ok_or("it ended before it served")?;
    let data = line.split_whitespace().find_map(|it| it.strip_prefix("data="));
    let address = data.ok_or_else(|| format!("no `data=` in: {line}"))?.parse()?;
    Ok(Running { address, child: Some(child), _dir: dir })
}

fn crossfade_config(percent: u32, providers: &Providers, dir: &Path) -> String {
    let (primary, candidate) = (providers.primary.address, providers.candidate.address);
    let store = dir.join("store");
    let rollout = match percent {
        0 => String::new(),
        _ => format!(
            "[rollout.bench]
            candidate = \"candidate\"
            autostart = true
            copies_per_day = 1_000_000_000
            gates = {{ latency_p99 = \"off\", judge_score = \"off\" }}
            [[rollout.bench.stage]]
            name = \"mirror\"
            serve = \"0%\"
            mirror = \"{percent}%\"
            duration = \"1h\"
            samples = 1_000_000"
        ),
    };
    format!(
        "listen = \"127.0.0.1:0\"
        control = \"127.0.0.1:0\"
        operations = \"127.0.0.1:0\"
        store = \"{}\"
        primary = \"primary\"
        [provider.primary]
        base_url = \"http://{primary}/v1\"
        [provider.candidate]
        base_url = \"http://{candidate}/v1\"
        {rollout}\n",
        store.display()
    )
}
