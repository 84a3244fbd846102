//! Numbers as Liquid's filters see them: whole, decimal, or (when nothing else will do) binary.
//!
//! As in the reference, arithmetic on fractions is decimal, so that `1.1 | plus: 2.2` is `3.3`. What
//! came as an exact decimal stays one; what came as a float or as text becomes a float again.

use crate::held::{Held, Text};

/// A fault of a computation, without its place.
pub(crate) type Message = String;

#[derive(Debug, Clone, Copy)]
pub(crate) enum Number {
    Int(i128),
    Decimal(Decimal),
    Float(f64),
}

/// `mantissa / 10^scale`
#[derive(Debug, Clone, Copy)]
pub(crate) struct Decimal {
    mantissa: i128,
    scale: u32,
    /// The value was an exact decimal, and so is what is made of it.
    exact: bool,
}

/// Digits after the point that a division works out.
const QUOTIENT_SCALE: u32 = 20;
/// More digits after the point are left to floats.
const SCALE_MAX: u32 = 37;

impl Decimal {
    fn parse(text: &str, exact: bool) -> Option<Self> {
        let text = text.trim();
        let (text, exponent) = match text.find(['e', 'E']) {
            Some(at) => (&text[..at], text[at + 1..].parse::<i32>().ok()?),
            None => (text, 0),
        };
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        let digits: String = [whole, fraction].concat();
        let mut mantissa: i128 = digits.parse().ok()?;
        let scale = i32::try_from(fraction.len()).ok()?.checked_sub(exponent)?;
        if scale < 0 {
            mantissa = mantissa.checked_mul(10_i128.checked_pow(scale.unsigned_abs())?)?;
        }
        let scale = u32::try_from(scale).unwrap_or(0);
        (scale <= SCALE_MAX).then_some(Self { mantissa, scale, exact })
    }

    fn to_float(self) -> f64 {
        self.digits().parse().unwrap_or(f64::NAN)
    }

    fn digits(self) -> String {
        if self.scale == 0 {
            return self.mantissa.to_string();
        }
        let width = self.scale as usize + 1;
        let digits = format!("{:0width$}", self.mantissa.unsigned_abs());
        let (whole, fraction) = digits.split_at(digits.len() - self.scale as usize);
        format!("{}{whole}.{fraction}", if self.mantissa < 0 { "-" } else { "" })
    }

    fn rescaled(self, scale: u32) -> Option<i128> {
        self.mantissa.checked_mul(10_i128.checked_pow(scale - self.scale)?)
    }

    /// Rounded half away from zero to `scale` digits after the point, which may be negative.
    fn rounded(self, scale: i32) -> Option<Self> {
        let drop = i64::from(self.scale) - i64::from(scale);
        if drop <= 0 {
            return Some(self);
        }
        let Some(unit) = u32::try_from(drop).ok().and_then(|drop| 10_i128.checked_pow(drop)) else {
            return Some(Self { mantissa: 0, scale: 0, exact: self.exact });
        };
        let (whole, rest) = (self.mantissa / unit, self.mantissa % unit);
        let away = rest.unsigned_abs() >= unit.unsigned_abs().div_ceil(2);
        let whole = whole.checked_add(if away { self.mantissa.signum() } else { 0 })?;
        if scale >= 0 {
            return Some(Self { mantissa: whole, scale: scale.unsigned_abs(), exact: self.exact });
        }
        let mantissa = whole.checked_mul(10_i128.checked_pow(scale.unsigned_abs())?)?;
        Some(Self { mantissa, scale: 0, exact: self.exact })
    }
}

impl Number {
    /// What a filter takes a value for. What is no number is 0; text counts with the digits it begins
    /// with.
    pub fn of(held: &Held<'_>) -> Self {
        match held {
            Held::Int(int) => Self::Int(*int),
            Held::Float(float) => {
                let decimal = float.is_finite().then(|| Decimal::parse(&format!("{float:e}"), false));
                decimal.flatten().map_or(Self::Float(*float), Self::Decimal)
            }
            Held::Decimal(digits) => match Decimal::parse(digits, true) {
                Some(decimal) if decimal.scale > 0 || digits.contains('.') => Self::Decimal(decimal),
                Some(decimal) => Self::Int(decimal.mantissa),
                None => Self::Float(digits.trim().parse().unwrap_or(0.0)),
            },
            Held::Str(text) => Self::of_text(text),
            _ => Self::Int(0),
        }
    }

    fn of_text(text: &str) -> Self {
        let text = text.trim();
        let unsigned = text.strip_prefix('-').unwrap_or(text);
        let numeric = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        if let Some((whole, fraction)) = unsigned.split_once('.')
            && numeric(whole)
            && numeric(fraction)
        {
            let decimal = Decimal::parse(text, false).map(Self::Decimal);
            return decimal.unwrap_or_else(|| Self::Float(text.parse().unwrap_or(0.0)));
        }
        let signed = text.strip_prefix(['-', '+']).unwrap_or(text);
        let end = signed.find(|c: char| !c.is_ascii_digit()).unwrap_or(signed.len());
        let digits = &signed[..end];
        if digits.is_empty() {
            return Self::Int(0);
        }
        let sign = if text.starts_with('-') { "-" } else { "" };
        match format!("{sign}{digits}").parse() {
            Ok(int) => Self::Int(int),
            Err(_) => Self::Float(format!("{sign}{digits}").parse().unwrap_or(0.0)),
        }
    }

    /// A number if the value is one, for comparisons: text is none.
    pub fn exactly(held: &Held<'_>) -> Option<Self> {
        match held {
            Held::Int(_) | Held::Float(_) | Held::Decimal(_) => Some(Self::of(held)),
            _ => None,
        }
    }

    pub fn held<'r>(self) -> Held<'r> {
        match self {
            Self::Int(int) => Held::Int(int),
            Self::Float(float) => Held::Float(float),
            Self::Decimal(decimal) if decimal.exact => Held::Decimal(Text::Own(decimal.digits().into())),
            Self::Decimal(decimal) => Held::Float(decimal.to_float()),
        }
    }

    pub fn to_float(self) -> f64 {
        match self {
            Self::Int(int) => int as f64,
            Self::Float(float) => float,
            Self::Decimal(decimal) => decimal.to_float(),
        }
    }

    fn decimal(self) -> Option<Decimal> {
        match self {
            Self::Int(mantissa) => Some(Decimal { mantissa, scale: 0, exact: false }),
            Self::Decimal(decimal) => Some(decimal),
            Self::Float(_) => None,
        }
    }

    fn aligned(self, other: Self) -> Option<(i128, i128, u32, bool)> {
        let (left, right) = (self.decimal()?, other.decimal()?);
        let scale = left.scale.max(right.scale);
        Some((left.rescaled(scale)?, right.rescaled(scale)?, scale, left.exact || right.exact))
    }

    pub fn compare(self, other: Self) -> Option<std::cmp::Ordering> {
        match self.aligned(other) {
            Some((left, right, ..)) => Some(left.cmp(&right)),
            None => self.to_float().partial_cmp(&other.to_float()),
        }
    }

    fn is_exact(self) -> bool {
        match self {
            Self::Int(_) => true,
            Self::Decimal(decimal) => decimal.exact,
            Self::Float(_) => false,
        }
    }

    /// A float stands in for a result of too many digits, unless digits were to be kept.
    fn too_long(self, other: Self, float: f64) -> Result<Self, Message> {
        if self.is_exact() && other.is_exact() {
            return Err("the result has more digits than can be kept".to_owned());
        }
        Ok(Self::Float(float))
    }

    pub fn plus(self, other: Self) -> Result<Self, Message> {
        if let (Self::Int(left), Self::Int(right)) = (self, other)
            && let Some(sum) = left.checked_add(right)
        {
            return Ok(Self::Int(sum));
        }
        let sum = self.aligned(other).and_then(|(left, right, scale, exact)| {
            Some(Self::Decimal(Decimal { mantissa: left.checked_add(right)?, scale, exact }))
        });
        sum.map_or_else(|| self.too_long(other, self.to_float() + other.to_float()), Ok)
    }

    pub fn negated(self) -> Result<Self, Message> {
        self.times(Self::Int(-1))
    }

    pub fn times(self, other: Self) -> Result<Self, Message> {
        if let (Self::Int(left), Self::Int(right)) = (self, other)
            && let Some(product) = left.checked_mul(right)
        {
            return Ok(Self::Int(product));
        }
        let product = self.decimal().zip(other.decimal()).and_then(|(left, right)| {
            let scale = left.scale + right.scale;
            let mantissa = left.mantissa.checked_mul(right.mantissa)?;
            let exact = left.exact || right.exact;
            (scale <= SCALE_MAX).then_some(Self::Decimal(Decimal { mantissa, scale, exact }))
        });
        product.map_or_else(|| self.too_long(other, self.to_float() * other.to_float()), Ok)
    }

    pub fn divided_by(self, other: Self) -> Result<Self, Message> {
        if other.is_zero() {
            return Err("divided by 0".to_owned());
        }
        if let (Self::Int(left), Self::Int(right)) = (self, other) {
            return floor_divide(left, right)
                .map(Self::Int)
                .ok_or_else(|| "the result is too big".to_owned());
        }
        let quotient =
            self.aligned(other).filter(|(.., exact)| *exact).and_then(|(left, right, _, exact)| {
                let mantissa = left.checked_mul(10_i128.pow(QUOTIENT_SCALE + 1))? / right;
                let rounded =
                    Decimal { mantissa, scale: QUOTIENT_SCALE + 1, exact }.rounded(QUOTIENT_SCALE as i32)?;
                Some(Self::Decimal(trimmed(rounded)))
            });
        Ok(quotient
            .or_else(|| self.float_quotient(other))
            .unwrap_or_else(|| Self::Float(self.to_float() / other.to_float())))
    }

    /// The float that is nearest to the quotient of two decimals, so that `1.005 | divided_by: 2.5` is `0.402`.
    fn float_quotient(self, other: Self) -> Option<Self> {
        let (left, right, ..) = self.aligned(other)?;
        let scale = 37_u32.saturating_sub(left.unsigned_abs().checked_ilog10().unwrap_or(0) + 1);
        let quotient = left.checked_mul(10_i128.checked_pow(scale)?)?.checked_div(right)?;
        // As many digits as a float can need, or it is left to floats.
        if quotient.unsigned_abs() < 10_u128.pow(19)
            && quotient.checked_mul(right)? != left.checked_mul(10_i128.checked_pow(scale)?)?
        {
            return None;
        }
        format!("{quotient}e-{scale}").parse().ok().map(Self::Float)
    }

    pub fn modulo(self, other: Self) -> Result<Self, Message> {
        if other.is_zero() {
            return Err("divided by 0".to_owned());
        }
        let modulo = |left: i128, right: i128| {
            let rest = left.checked_rem(right).unwrap_or(0);
            if rest != 0 && (rest < 0) != (right < 0) { rest + right } else { rest }
        };
        if let (Self::Int(left), Self::Int(right)) = (self, other) {
            return Ok(Self::Int(modulo(left, right)));
        }
        Ok(if let Some((left, right, scale, exact)) = self.aligned(other) {
            Self::Decimal(Decimal { mantissa: modulo(left, right), scale, exact })
        } else {
            let (left, right) = (self.to_float(), other.to_float());
            Self::Float(left - right * (left / right).floor())
        })
    }

    fn is_zero(self) -> bool {
        match self {
            Self::Int(int) => int == 0,
            Self::Decimal(decimal) => decimal.mantissa == 0,
            Self::Float(float) => float == 0.0,
        }
    }

    pub fn abs(self) -> Self {
        match self {
            Self::Int(int) => Self::Int(int.saturating_abs()),
            Self::Float(float) => Self::Float(float.abs()),
            Self::Decimal(decimal) => {
                Self::Decimal(Decimal { mantissa: decimal.mantissa.saturating_abs(), ..decimal })
            }
        }
    }

    /// Half away from zero. Without digits after the point the result is whole.
    pub fn round(self, digits: i128) -> Result<Self, Message> {
        let scale = digits.clamp(-100, 100) as i32;
        match self {
            Self::Int(_) if scale >= 0 => Ok(self),
            Self::Int(mantissa) => {
                let rounded = Decimal { mantissa, scale: 0, exact: true }.rounded(scale);
                rounded.map(|rounded| Self::Int(rounded.mantissa)).ok_or_else(too_big)
            }
            Self::Decimal(decimal) => {
                let rounded = decimal.rounded(scale).ok_or_else(too_big)?;
                Ok(if scale <= 0 { Self::Int(rounded.mantissa) } else { Self::Decimal(rounded) })
            }
            Self::Float(float) if !float.is_finite() => Err(format!("cannot round {float}")),
            Self::Float(float) => whole(float.round()),
        }
    }

    pub fn floor(self) -> Result<Self, Message> {
        match self {
            Self::Int(_) => Ok(self),
            Self::Decimal(decimal) => {
                let unit = 10_i128.pow(decimal.scale);
                Ok(Self::Int(decimal.mantissa.div_euclid(unit)))
            }
            Self::Float(float) => whole(float.floor()),
        }
    }

    pub fn ceil(self) -> Result<Self, Message> {
        self.negated()?.floor()?.negated()
    }
}

fn too_big() -> Message {
    "the result is too big".to_owned()
}

fn whole(float: f64) -> Result<Number, Message> {
    if float.abs() < 1e38 {
        Ok(Number::Int(float as i128))
    } else {
        Err(format!("cannot make {float} whole"))
    }
}

fn floor_divide(left: i128, right: i128) -> Option<i128> {
    let quotient = left.checked_div(right)?;
    let exact = left.checked_rem(right)? == 0;
    Some(if !exact && (left < 0) != (right < 0) { quotient - 1 } else { quotient })
}

/// Without the zeros at the end, of which a quotient has many.
fn trimmed(mut decimal: Decimal) -> Decimal {
    while decimal.scale > 0 && decimal.mantissa % 10 == 0 {
        decimal.mantissa /= 10;
        decimal.scale -= 1;
    }
    decimal
}
