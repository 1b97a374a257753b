//! Question by question: captures in, what they say out.

use std::io::{Read, Write};

use anyhow::{Context, Result, bail};
use davy_inspect::{Bounds, Inspector};
use davy_model::Confinement;
use davy_wire::worker::{InspectReply, InspectRequest, read_frame, write_frame};

/// Answers until the stream ends.
pub(crate) fn serve(from: &mut impl Read, to: &mut impl Write, confinement: Confinement) -> Result<()> {
    let Some(first) = read_frame(from).context("reading the agent's first words")? else { return Ok(()) };
    let InspectRequest::Begin { head_bytes, flows } = first else {
        bail!("the agent did not say how to begin")
    };
    let bounds = Bounds { head_bytes: head_bytes as usize, flows: flows as usize, ..Bounds::default() };
    let mut inspector = Inspector::new(bounds);
    write_frame(to, &InspectReply::Ready(confinement)).context("answering the agent")?;
    while let Some(question) = read_frame(from).context("reading the agent's question")? {
        let InspectRequest::Read(captures) = question else { bail!("the agent began twice") };
        let mut said = Vec::new();
        for (place, capture) in (0u32..).zip(&captures) {
            said.extend(inspector.read(capture).into_iter().map(|what| (place, what)));
        }
        write_frame(to, &InspectReply::Said { said, given_up: inspector.given_up() })
            .context("answering the agent")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use davy_model::{Captured, Direction, FlowKey, Said};

    use super::*;

    fn confinement() -> Confinement {
        let missing = vec!["all of it: this is a test".to_owned()];
        Confinement { unprivileged: false, files_closed: false, calls_filtered: false, memory: 0, missing }
    }

    fn ask(questions: &[InspectRequest]) -> (Result<()>, Vec<InspectReply>) {
        let (mut stream, mut answer) = (Vec::new(), Vec::new());
        questions.iter().for_each(|question| write_frame(&mut stream, question).unwrap());
        let end = serve(&mut &stream[..], &mut answer, confinement());
        let mut answer = &answer[..];
        let replies = std::iter::from_fn(|| read_frame(&mut answer).unwrap()).collect();
        (end, replies)
    }

    #[test]
    fn what_captures_say_comes_back_with_their_places() {
        let flow = |bytes: &[u8]| Captured::Flow {
            flow: FlowKey(9),
            direction: Direction::Sent,
            offset: 0,
            bytes: bytes.to_vec(),
        };
        let captures = vec![flow(b"GET /a HTTP/1.1\r\nHost: a.exa"), flow(b"mple\r\n\r\n")];
        let (end, replies) =
            ask(&[InspectRequest::Begin { head_bytes: 100, flows: 10 }, InspectRequest::Read(captures)]);
        end.unwrap();
        let [InspectReply::Ready(_), InspectReply::Said { said, given_up: 0 }] = &replies[..] else {
            panic!("{replies:?}")
        };
        assert!(
            matches!(&said[..], [.., (1, Said::Flow(f))] if f.name.as_deref() == Some("a.example")),
            "{said:?}"
        );
    }

    #[test]
    fn an_agent_that_makes_no_sense_is_told_so() {
        let (end, replies) = ask(&[InspectRequest::Read(Vec::new())]);
        assert!(end.is_err() && replies.is_empty());
    }
}
