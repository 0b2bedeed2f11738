//! Pix at the receiver's bank: an immediate charge (`cob`), which somebody pays later.
//!
//! A charge is `ATIVA` when it is created, and later `CONCLUIDA`, or `REMOVIDA_PELO_PSP` where it is declined. Its `txid` is in the
//! path and unique for ever: another request with it is refused, whatever it says.

use hyper::Method;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::books::{Books, Order, State, View};
use super::dialect::{Ask, Auth, Dialect, Does, Format, KeyRule, Notice, Reply, Signer, Trouble, text};
use crate::processor::{Decimal, parse_cents};

/// Pix.
pub(super) static PIX: Dialect = Dialect {
    name: "pix",
    routes: &[
        (Method::POST, "/oauth/token", Does::Token),
        (Method::PUT, "/v2/cob/{}", Does::Create),
        (Method::GET, "/v2/cob/{}", Does::Find),
        (Method::GET, "/v2/cob", Does::List),
    ],
    auth: Auth::OAuth2,
    format: Format::Json,
    key: KeyRule::Name,
    is_always_later: true,
    read,
    created: |view, _| Reply::json(201, &charge(view)),
    found: |view| Reply::json(200, &charge(view)),
    find: |books, txid, now_ms| books.named(txid, now_ms).next(),
    list,
    trouble,
    notice,
};

/// The standard's lengths of a `txid`.
const TXID_LEN_MIN: usize = 26;
const TXID_LEN_MAX: usize = 35;

/// Charges on one page of a list.
const PAGE_LEN: usize = 100;

fn read(ask: &Ask<'_>) -> Result<Order, Trouble> {
    let txid = ask.parameter;
    let is_txid = (TXID_LEN_MIN..=TXID_LEN_MAX).contains(&txid.len())
        && txid.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if !is_txid {
        return Err(Trouble::invalid("txid", "O txid não respeita o padrão ^[a-zA-Z0-9]{26,35}$."));
    }
    let fields = ask.json()?;
    let original = text(&fields, "/valor/original");
    let has_two_decimals = original.split_once('.').is_some_and(|(whole, cents)| {
        let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        (1..=10).contains(&whole.len()) && cents.len() == 2 && is_number(whole) && is_number(cents)
    });
    let amount_cents = parse_cents(original).ok().filter(|cents| has_two_decimals && *cents > 0);
    let amount_cents = amount_cents.ok_or_else(|| {
        Trouble::invalid("cob.valor.original", "O campo cob.valor.original não respeita o schema.")
    })?;
    if text(&fields, "/chave").is_empty() {
        return Err(Trouble::invalid("cob.chave", "O campo cob.chave não respeita o schema."));
    }
    let currency = "BRL".to_owned();
    Ok(Order { name: txid.to_owned(), amount_cents, currency, is_bad_card: false, echo: fields })
}

fn iso(ms: i64) -> String {
    Timestamp::from_millisecond(ms).map(|at| format!("{at:.3}")).unwrap_or_default()
}

fn amount(view: &View<'_>) -> String {
    Decimal::from_cents(i128::from(view.entry.amount_cents)).to_string()
}

/// The payment's own id, as the standard forms it: the bank's number, a time, and letters.
fn end_to_end_id(number: usize) -> String {
    format!("E00000000202601010000{number:011}")
}

fn charge(view: &View<'_>) -> Value {
    let entry = view.entry;
    let txid = &entry.order.name;
    let status = match view.state {
        State::Pending => "ATIVA",
        State::Paid => "CONCLUIDA",
        State::Declined => "REMOVIDA_PELO_PSP",
    };
    let expires_s =
        entry.order.echo.pointer("/calendario/expiracao").and_then(Value::as_i64).unwrap_or(86_400);
    let mut charge = json!({
        "calendario": {"criacao": iso(entry.created_ms), "expiracao": expires_s},
        "txid": txid,
        "revisao": 0,
        "location": format!("pix.example.com/qr/v2/{txid}"),
        "status": status,
        "valor": {"original": amount(view)},
        "chave": entry.order.echo.get("chave"),
    });
    for member in ["devedor", "solicitacaoPagador"] {
        if let Some(value) = entry.order.echo.get(member) {
            charge[member] = value.clone();
        }
    }
    if view.state == State::Paid {
        charge["pix"] = json!([paid(view)]);
    }
    charge
}

fn paid(view: &View<'_>) -> Value {
    json!({
        "endToEndId": end_to_end_id(view.number),
        "txid": view.entry.order.name,
        "valor": amount(view),
        "horario": iso(view.entry.decided_ms),
    })
}

/// The charges created between `inicio` and `fim`.
fn list(ask: &Ask<'_>, books: &Books, now_ms: i64) -> Result<Reply, Trouble> {
    let bound = |name: &'static str| {
        let text = ask.parameter(name).unwrap_or_default();
        let at = text.parse::<Timestamp>().map(Timestamp::as_millisecond);
        at.map_err(|_| Trouble::invalid(name, format!("O parâmetro {name} não respeita o schema.")))
    };
    let (from_ms, to_ms) = (bound("inicio")?, bound("fim")?);
    let page = ask.parameter("paginacao.paginaAtual").and_then(|page| page.parse().ok()).unwrap_or(0_usize);
    let is_wanted = |view: &View<'_>| (from_ms..=to_ms).contains(&view.entry.created_ms);
    let found: Vec<View<'_>> = books.all(now_ms).filter(is_wanted).collect();
    let charges: Vec<Value> =
        found.iter().skip(page.saturating_mul(PAGE_LEN)).take(PAGE_LEN).map(charge).collect();
    Ok(Reply::json(
        200,
        &json!({
            "parametros": {
                "inicio": iso(from_ms),
                "fim": iso(to_ms),
                "paginacao": {
                    "paginaAtual": page,
                    "itensPorPagina": PAGE_LEN,
                    "quantidadeDePaginas": found.len().div_ceil(PAGE_LEN),
                    "quantidadeTotalDeItens": found.len(),
                },
            },
            "cobs": charges,
        }),
    ))
}

fn trouble(trouble: &Trouble) -> Reply {
    let problem = |status: u16, kind: &str, title: &str, detail: &str| {
        json!({
            "type": format!("https://pix.bcb.gov.br/api/v2/error/{kind}"),
            "title": title,
            "status": status,
            "detail": detail,
        })
    };
    let reply = |status: u16, body: &Value| {
        Reply::json(status, body).with("Content-Type", "application/problem+json")
    };
    let plain = |status: u16, kind: &str, title: &str| reply(status, &problem(status, kind, title, title));
    match trouble {
        Trouble::Unauthorized => plain(401, "AcessoNegado", "Não autorizado."),
        Trouble::NoRoute => plain(404, "NaoEncontrado", "Não Encontrado."),
        Trouble::WrongMethod => plain(405, "RequisicaoInvalida", "Método não permitido."),
        Trouble::WrongFormat => plain(415, "RequisicaoInvalida", "Tipo de mídia não suportado."),
        Trouble::Invalid { member, what } => {
            let detail = "A requisição não respeita o schema ou está semanticamente errada.";
            let mut body = problem(400, "RequisicaoInvalida", "Requisição inválida.", detail);
            body["violacoes"] = json!([{"razao": what, "propriedade": member}]);
            reply(400, &body)
        }
        Trouble::NotFound(txid) => {
            let detail = format!("Cobrança não encontrada para o txid {txid}.");
            reply(404, &problem(404, "NaoEncontrado", "Não Encontrado.", &detail))
        }
        Trouble::Exists(txid) => {
            let detail = format!("O txid {txid} já foi utilizado.");
            reply(400, &problem(400, "CobOperacaoInvalida", "Cobrança inválida.", &detail))
        }
        Trouble::KeyInUse | Trouble::KeyConflict => plain(400, "CobOperacaoInvalida", "Cobrança inválida."),
        Trouble::TooMany => plain(429, "ServicoIndisponivel", "Limite de requisições excedido."),
        Trouble::Broken => plain(500, "ErroInternoDoServidor", "Erro interno do servidor."),
        Trouble::Down => plain(503, "ServicoIndisponivel", "Serviço Indisponível."),
    }
}

/// Tells what was paid. What is removed is not told, and nothing is signed: banks show their certificate instead.
fn notice(view: &View<'_>, _: &Signer) -> Option<Notice> {
    let body = json!({"pix": [paid(view)]}).to_string();
    (view.state == State::Paid).then(|| Notice { headers: Vec::new(), body })
}
